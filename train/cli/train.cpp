// mixtape train CONFIG... [key=value...]
#include "train/cli/arguments.h"
#include "train/cli/commands.h"
#include "train/report/console.h"
#include "train/report/html.h"
#include "train/trainer.h"

namespace mixtape {

void add_train_command(Command& app) {
  Command command = app.subcommand("train", "train a model; the same command again goes on where it stopped");
  const auto arguments = add_config_arguments(command);
  command.action([arguments] {
    ResolvedConfig config = load_arguments(arguments());
    const std::filesystem::path directory = config.config.run_directory();
    Trainer trainer(std::move(config), command_line());
    try {
      exit_code = int(trainer.run());
    } catch (...) {  // a run that failed is the one whose curves are wanted
      try {
        write_html_report({directory});
      } catch (const std::exception&) {  // the first error says more
      }
      throw;
    }
    write_html_report({directory});
    console().line(
        exit_code == int(Exit::saved_after_signal)
            ? fmt::format("stopped after a signal, saved in {}; the same command goes on", directory.string())
            : fmt::format("done: {}, report in {}", directory.string(), (directory / "report.html").string()));
  });
}

}  // namespace mixtape
