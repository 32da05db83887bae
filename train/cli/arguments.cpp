#include "train/cli/arguments.h"

#include <fstream>

#include "train/resume.h"

namespace mixtape {

std::vector<std::string> command_line() {
  std::ifstream file("/proc/self/cmdline");
  std::vector<std::string> words;
  for (std::string word; std::getline(file, word, '\0');) words.push_back(word);
  return words;
}

std::shared_ptr<ModelArguments> add_model_arguments(Command& command) {
  auto arguments = std::make_shared<ModelArguments>();
  command.option("model", arguments->model, "a run, a checkpoint or a Hugging Face directory").required();
  command.option("--device", arguments->device, "auto, cpu, cuda or cuda:N");
  command.option("--dtype", arguments->dtype, "fp32, bf16 or fp16: type of weights and activations")
      .one_of({"fp32", "bf16", "fp16"});
  command.option("--threads", arguments->threads, "of the CPU; 0: one a core").range(0, 1024);
  return arguments;
}

LoadedModel load_model(const ModelArguments& arguments,
                       const std::function<EngineShape(const HfModel&, const Tokenizer*)>& shape) {
  LoadedModel loaded;
  loaded.directory = find_model(arguments.model);
  loaded.files = import_huggingface(loaded.directory);
  loaded.files.expect_complete();
  if (!loaded.files.tokenizer_files.empty()) loaded.tokenizer = load_tokenizer(loaded.directory);

  const EngineShape wanted = shape(loaded.files, loaded.tokenizer.get());
  EngineOptions options{.model = loaded.files.spec,
                        .device = {.device = arguments.device, .threads = arguments.threads},
                        .rows = wanted.rows,
                        .row_length = wanted.row_length,
                        .decoder_length = wanted.decoder_length,
                        .most_targets = wanted.most_targets};
  options.types.compute = arguments.dtype == "bf16" ? DType::bf16 : arguments.dtype == "fp16" ? DType::f16 : DType::f32;
  options.gradients = wanted.gradients;
  options.int8_weights = loaded.files.int8;
  if (options.int8_weights && options.gradients)
    throw ConfigError("{}: int8 weights have no gradients; export the model without --int8", arguments.model);
  // Finished models run without dropout.
  options.model.dropout = options.model.attention_dropout = 0;
  Engine rehearsal(options);
  if (wanted.rehearse) wanted.rehearse(rehearsal);
  loaded.engine = std::make_unique<Engine>(options, rehearsal.arena().peak());
  load_weights(*loaded.engine, loaded.files);
  return loaded;
}

int32_t decoder_start_of(const HfModel& files, const std::string& model) {
  const auto id = files.ids.decoder_start ? files.ids.decoder_start : files.ids.pad;
  if (!id || *id >= files.spec.vocab_size)
    throw DataError("{}: config.json: decoder_start_token_id, or else pad_token_id, is {}, expected a token", model,
                    id ? fmt::to_string(*id) : "missing");
  return int32_t(*id);
}

const Tokenizer& tokenizer_of(const LoadedModel& model) {
  if (!model.tokenizer)
    throw DataError(
        "{}: no tokenizer beside the model; expected tokenizer.json, tokenizer.model, or vocab.json and "
        "merges.txt",
        model.directory.string());
  return *model.tokenizer;
}

}  // namespace mixtape
