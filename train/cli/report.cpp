// mixtape report RUN...: one HTML page about one run, or about several beside each other.
#include <memory>
#include <string>
#include <vector>

#include "train/cli/commands.h"
#include "train/report/console.h"
#include "train/report/html.h"

namespace mixtape {

void add_report_command(Command& app) {
  struct Options {
    std::vector<std::string> runs;
    std::string output;
  };
  const auto options = std::make_shared<Options>();
  Command command =
      app.subcommand("report", "Write report.html: loss, speed, memory, samples and events of one or more runs");
  command.option("RUN", options->runs, "Run directories, for example runs/quickstart").required();
  command.option("-o,--output", options->output,
                 "The page to write (default: report.html in the only run, else in this directory)");
  command.action([options] {
    const auto file = write_html_report({options->runs.begin(), options->runs.end()}, options->output);
    console().line("report: " + file.string());
  });
}

}  // namespace mixtape
