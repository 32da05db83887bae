// mixtape export MODEL DIRECTORY: a run's weights as a directory that transformers loads.
#include <memory>

#include "train/checkpoint/huggingface/adapter.h"
#include "train/checkpoint/huggingface/model.h"
#include "train/cli/commands.h"
#include "train/resume.h"

namespace mixtape {
namespace {

struct ExportCommand {
  std::string model, directory, dtype = "same";
  double max_shard_gb = 5;
  bool adapter = false, int8 = false;
};

// The two files of PEFT's, which a checkpoint of such a run has.
void export_adapter(const ExportCommand& options) {
  const std::filesystem::path from = find_model(options.model), to = options.directory;
  if (!std::filesystem::exists(from / adapter_config_name))
    throw ConfigError("export: --adapter, but {} has no adapter: it was not trained with lora.rank", from.string());
  std::filesystem::create_directories(to);
  for (const char* name : {adapter_config_name, adapter_weights_name}) copy_file_durably(from / name, to / name);
  fmt::print("{}: the adapter, for PEFT\n", options.directory);
}

void run_export(const ExportCommand& options) {
  if (options.adapter && options.int8)
    throw ConfigError("export: keep one of --int8 and --adapter; without the second an adapter is merged");
  if (options.adapter) return export_adapter(options);
  const HfModel model = import_huggingface(find_model(options.model));
  model.expect_complete();
  if (options.int8 && model.int8) throw ConfigError("export: --int8, but {} has int8 weights already", options.model);
  const DType dtype = options.dtype == "fp32"   ? DType::f32
                      : options.dtype == "bf16" ? DType::bf16
                      : options.dtype == "fp16" ? DType::f16
                                                : model.dtype;
  export_huggingface(options.directory, model,
                     {.dtype = dtype, .max_shard_bytes = uint64_t(options.max_shard_gb * 1e9), .int8 = options.int8});
  const std::string family = model_type_of(model.spec);
  fmt::print("{}: {} with {} weights{}{}\n", options.directory, family, dtype, options.int8 ? ", int8 in layers," : "",
             model.tokenizer_files.empty() ? "" : " and its tokenizer");
  if (options.int8 && family == "gpt2")
    fmt::print("for Mixtape alone: transformers' layers of gpt2 are Conv1D, of which compressed-tensors has no int8\n");
}

}  // namespace

void add_export_command(Command& app) {
  Command command = app.subcommand("export", "write a model as a directory that transformers loads");
  const auto options = std::make_shared<ExportCommand>();
  command.option("model", options->model, "a run, a checkpoint or a Hugging Face directory").required();
  command.option("directory", options->directory, "the directory to write; it must not hold a model yet").required();
  command.option("--dtype", options->dtype, "of the weights: fp32, bf16, fp16, or as they are stored")
      .one_of({"same", "fp32", "bf16", "fp16"});
  command.option("--max-shard-gb", options->max_shard_gb, "largest file, in gigabytes").range(1e-6, 1e6);
  command.flag("--int8", options->int8,
               "weights of linear layers as int8 codes with a scale for each output, in the format compressed-tensors");
  command.flag("--adapter", options->adapter,
               "of a run with lora.rank: the adapter alone, in PEFT's format, not merged");
  command.action([options] { run_export(*options); });
}

}  // namespace mixtape
