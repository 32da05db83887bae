// mixtape doctor: what this machine and this build can do, and what keeps them from doing it well.
#include <fmt/format.h>

#include <algorithm>

#include "train/cli/commands.h"
#include "train/report/console.h"
#include "train/report/machine.h"

namespace mixtape {

void add_doctor_command(Command& app) {
  Command command = app.subcommand("doctor", "Examine the machine, the libraries and this build, with advice");
  command.action([] {
    const auto findings = examine_machine();
    const auto warnings = std::count_if(findings.begin(), findings.end(), [](const Finding& f) { return !f.ok(); });
    console().raw(findings_text(findings, true));  // the console takes the colour out where it is not wanted
    console().raw(warnings == 0
                      ? "Everything is in order."
                      : fmt::format("{} thing{} to look at, marked !! above.", warnings, warnings == 1 ? "" : "s"));
  });
}

}  // namespace mixtape
