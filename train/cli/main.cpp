// `mixtape`: one binary, a sub-command for each thing that one does with a model.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <new>

#include "core/base/error.h"
#include "train/cli/commands.h"
#include "train/report/machine.h"

namespace mixtape {

int exit_code = 0;

namespace {

void add_commands(CLI::App& app) {
  add_train_command(app);
  add_eval_command(app);
  add_generate_command(app);
  add_forward_command(app);
  add_plan_command(app);
  add_config_command(app);
  add_doctor_command(app);
  add_report_command(app);
  add_export_command(app);
  add_import_command(app);
  add_data_command(app);
  add_tokenizer_command(app);
  add_bench_command(app);
  add_inspect_command(app);
}

int run(int argc, char** argv) {
  CLI::App app{"Mixtape pre-trains transformers from a YAML file: mixtape train config.yaml", "mixtape"};
  app.set_version_flag("--version", "mixtape " + build_text());
  app.require_subcommand(1);
  add_commands(app);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& success) {  // --help, --version
    return app.exit(success);
  } catch (const CLI::Error& error) {
    std::fprintf(stderr, "mixtape: %s\nTry: mixtape --help\n", error.what());
    return int(Exit::config);
  } catch (const Error& error) {
    std::fprintf(stderr, "mixtape: %s\n", error.what());
    return int(error.exit_code());
  } catch (const std::bad_alloc&) {
    std::fprintf(stderr, "mixtape: out of memory\n");
    return int(Exit::failure);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "mixtape: %s\n", error.what());
    return int(Exit::failure);
  }
  return exit_code;
}

}  // namespace
}  // namespace mixtape

int main(int argc, char** argv) { return mixtape::run(argc, argv); }
