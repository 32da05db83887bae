// mixtape config: the configuration that a run would have, where each value comes from, and what a key means.
#include <memory>

#include "train/cli/commands.h"
#include "train/config/config.h"
#include "train/devices.h"

namespace mixtape {

std::function<std::vector<std::string>()> add_config_arguments(Command& command) {
  const auto arguments = std::make_shared<std::vector<std::string>>();
  command.option("arguments", *arguments, "YAML files and key=value; later ones win").type_name("FILE|KEY=VALUE");
  command.keep_unknown();  // --section.key=value; load_arguments refuses all others
  return [arguments, command] {
    std::vector<std::string> all = *arguments;
    for (const std::string& extra : command.remaining()) all.push_back(extra);
    return all;
  };
}

void add_config_command(Command& app) {
  struct Options {
    std::string explain;
    bool origins = false, markdown = false;
  };
  Command command = app.subcommand("config", "print the configuration that a run would have, or explain a key");
  const auto options = std::make_shared<Options>();
  const auto arguments = add_config_arguments(command);
  command.flag("--origins", options->origins, "show where each value comes from");
  command.option("--explain", options->explain, "a key such as optimizer.lr, or a section").type_name("KEY");
  command.flag("--markdown", options->markdown, "print the page docs/config.md");
  command.action([options, arguments] {
    if (options->markdown) {
      fmt::print("{}", config_markdown());
    } else if (!options->explain.empty()) {
      fmt::print("{}", explain_key(options->explain));
    } else {
      const ResolvedConfig resolved = load_arguments(arguments());
      fmt::print("{}", to_yaml(resolved.config, options->origins ? &resolved.origins : nullptr));
      check(resolved.config, resolved.origins, build_features());
    }
  });
}

}  // namespace mixtape
