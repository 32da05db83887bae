// mixtape doctor: what this machine and this build can do, and what keeps them from doing it well.
#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "train/cli/commands.h"
#include "train/devices.h"
#include "train/report/console.h"
#include "train/report/machine.h"
#include "train/report/units.h"
#include "train/tuning_cache.h"

namespace mixtape {
namespace {

// Which library multiplies which shape was timed by earlier runs; a user should know where that is remembered.
Finding matmul_choices_finding() {
  const auto backend = make_backend({.device = "cpu"});
  const std::string table = load_tuning(*backend);
  const std::string file = tuning_file(*backend).string();
  return {"libraries", "matmul choices",
          table.empty() ? "none yet: the first step of a run times the libraries"
                        : fmt::format("{} timed, in {}", counted(std::ranges::count(table, '\n'), "shape"), file),
          ""};
}

// The GPUs, in place of whether the build could use any.
void list_gpus(std::vector<Finding>& findings) {
  const auto cuda = std::ranges::find_if(findings, [](const Finding& f) { return f.name == "cuda"; });
  const Gpus gpus = find_gpus();
  cuda->value = gpus.names.empty() ? "no: " + gpus.none_because : gpus.names[0];
  std::vector<Finding> others;
  for (size_t i = 1; i < gpus.names.size(); ++i)
    others.push_back({"devices", fmt::format("cuda:{}", i), gpus.names[i], ""});
  findings.insert(cuda + 1, others.begin(), others.end());
}

}  // namespace

void add_doctor_command(Command& app) {
  Command command = app.subcommand("doctor", "Examine the machine, the libraries and this build, with advice");
  command.action([] {
    auto findings = examine_machine();
    list_gpus(findings);
    const auto after = std::ranges::find_if(findings, [](const Finding& f) { return f.name == "OpenBLAS"; });
    findings.insert(after + 1, matmul_choices_finding());
    const auto warnings = std::count_if(findings.begin(), findings.end(), [](const Finding& f) { return !f.ok(); });
    console().raw(findings_text(findings, true));  // the console takes the colour out where it is not wanted
    console().raw(warnings == 0
                      ? "Everything is in order."
                      : fmt::format("{} thing{} to look at, marked !! above.", warnings, warnings == 1 ? "" : "s"));
  });
}

}  // namespace mixtape
