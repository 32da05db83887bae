// mixtape import DIRECTORY OUT: a Hugging Face directory, checked and rewritten, as the start of a run.
//
// Not needed for starting one (run.init_from takes the directory as it is): it shows what the directory holds, and
// leaves a copy without what a run does not need, in the type and the names that Mixtape writes.
#include <memory>

#include "train/checkpoint/huggingface/model.h"
#include "train/cli/commands.h"
#include "train/report/units.h"

namespace mixtape {
namespace {

struct ImportCommand {
  std::string source, target;
};

void describe(const HfModel& model) {
  int64_t parameters = 0;
  for (const ParameterShape& p : parameter_shapes(model.spec)) parameters += count_of(p.shape);
  const ModelSpec& s = model.spec;
  fmt::print("{}: {} parameters in {}{}\n", model.model_type, with_thousands(parameters), model.dtype,
             model.int8 ? ", those of layers in int8" : "");
  fmt::print("  {} layers, d_model {}, {} heads ({} of keys and values) of {}, d_ff {}, vocabulary {}, {} positions\n",
             s.n_layers, s.d_model, s.n_heads, s.kv_heads(), s.head_width(), s.ff_width(), s.vocab_size,
             s.max_positions);
  for (const auto& file : model.tokenizer_files) fmt::print("  tokenizer: {}\n", file.filename().string());
  for (const std::string& name : model.ignored) fmt::print("  not needed: {}\n", name);
}

void run_import(const ImportCommand& options) {
  const HfModel model = import_huggingface(options.source);
  describe(model);
  model.expect_complete();
  if (options.target.empty()) return;
  export_huggingface(options.target, model, {.dtype = model.dtype});
  fmt::print("written to {}; start a run from it with run.init_from={}\n", options.target, options.target);
}

}  // namespace

void add_import_command(Command& app) {
  Command command = app.subcommand("import", "check a Hugging Face directory, and copy it as the start of a run");
  const auto options = std::make_shared<ImportCommand>();
  command.option("directory", options->source, "config.json, model.safetensors and tokenizer files").required();
  command.option("out", options->target, "where to write the copy; without it the directory is only checked");
  command.action([options] { run_import(*options); });
}

}  // namespace mixtape
