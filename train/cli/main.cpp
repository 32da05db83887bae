// `mixtape`: one binary, a sub-command for each thing that one does with a model.
#include <csignal>
#include <cstdio>
#include <new>

#include "core/base/error.h"
#include "train/cli/commands.h"
#include "train/report/machine.h"

namespace mixtape {

int exit_code = 0;

namespace {

void add_commands(Command& app) {
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
  try {
    const int code =
        run_command_line(argc, argv, "Mixtape pre-trains transformers from a YAML file: mixtape train config.yaml",
                         "mixtape " + build_text(), add_commands);
    return code ? code : exit_code;
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
}

}  // namespace
}  // namespace mixtape

int main(int argc, char** argv) {
  std::signal(SIGXFSZ, SIG_IGN);  // a limit to the size of files is an error of who writes, as a full disk is
  return mixtape::run(argc, argv);
}
