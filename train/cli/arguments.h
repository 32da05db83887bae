// What several commands read from a command line.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "train/checkpoint/huggingface/model.h"
#include "train/cli/command.h"
#include "train/data/tokenizer/tokenizer.h"
#include "train/engine.h"

namespace mixtape {

// The words of this process's command line.
std::vector<std::string> command_line();

// --device and --threads and --dtype, for commands that run a finished model.
struct ModelArguments {
  std::string model;  // a run directory, a checkpoint or a Hugging Face directory
  std::string device = "auto";
  std::string dtype = "fp32";  // of weights and activations
  int threads = 0;
};
std::shared_ptr<ModelArguments> add_model_arguments(Command& command);

// A finished model, ready to run.
struct LoadedModel {
  std::filesystem::path directory;
  HfModel files;
  std::unique_ptr<Engine> engine;
  std::unique_ptr<Tokenizer> tokenizer;  // null where the directory has none
};
struct EngineShape {
  int64_t rows = 0, row_length = 1, decoder_length = 0, most_targets = 0;
  bool gradients = false;
  // What the command will do, gone through on an engine without memory to find the capacity.
  std::function<void(Engine&)> rehearse;
};
// `shape` may read the files and the tokenizer (null where there is none).
LoadedModel load_model(const ModelArguments& arguments,
                       const std::function<EngineShape(const HfModel&, const Tokenizer*)>& shape);

// The first token that a decoder after an encoder reads: what config.json says; T5's files may leave it out, where it
// is the padding token.
int32_t decoder_start_of(const HfModel& files, const std::string& model);

// The tokenizer, or an error that says which command needs it.
const Tokenizer& tokenizer_of(const LoadedModel& model);

}  // namespace mixtape
