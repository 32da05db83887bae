// mixtape inspect checkpoint PATH: what a checkpoint, a model directory or a safetensors file holds, and if it is
// whole. mixtape inspect embeddings MODEL: the vectors of its tokens. mixtape inspect dtype NUMBER: in inspect_dtype.
#include <algorithm>
#include <cmath>
#include <map>
#include <memory>

#include "train/checkpoint/directory.h"
#include "train/checkpoint/huggingface/model.h"
#include "train/checkpoint/run_state.h"
#include "train/cli/commands.h"
#include "train/cli/inspect_dtype.h"
#include "train/embeddings.h"
#include "train/report/units.h"

namespace mixtape {
namespace {

namespace fs = std::filesystem;

struct CheckpointOptions {
  std::string path;
  bool tensors = false;
};

void print_tensor(const StoredTensor& tensor) {
  fmt::print("  {:<5} {:<20} {}\n", name_of(tensor.type), text_of(tensor.shape), tensor.name);
}

// What an optimizer keeps, by kind: "master 1.0 MiB, m 1.0 MiB, v 1.0 MiB".
std::string state_text(const SafetensorsFile& file) {
  std::map<std::string, int64_t> bytes;
  for (const StoredTensor& tensor : file.tensors())
    bytes[tensor.name.substr(0, tensor.name.find('.'))] += int64_t(tensor.data.size());
  std::vector<std::string> kinds;
  for (const auto& [kind, size] : bytes) kinds.push_back(fmt::format("{} {}", kind, human_bytes(double(size))));
  return fmt::format("{}", fmt::join(kinds, ", "));
}

void print_file(const fs::path& path, bool list) {
  const SafetensorsFile file = SafetensorsFile::open(path);
  int64_t elements = 0;
  for (const StoredTensor& tensor : file.tensors()) elements += count_of(tensor.shape);
  const bool optimizer = path.filename() == "optimizer.safetensors" && !file.tensors().empty();
  fmt::print("{}: {}, {}{}\n", path.filename().string(), counted(int64_t(file.tensors().size()), "tensor"),
             counted(elements, "element"), optimizer ? ": " + state_text(file) : "");
  if (list)
    for (const StoredTensor& tensor : file.tensors()) print_tensor(tensor);
}

void print_checkpoint(const fs::path& path, bool list) {
  if (fs::exists(path / "manifest.json")) {
    verify_checkpoint(path, [](const std::string& text) { fmt::print(stderr, "warning: {}\n", text); });
    fmt::print("{}: whole, every file has the hash of its manifest\n", path.string());
  }
  if (fs::exists(path / "state.json")) {
    const RunState state = run_state_from_json(read_text_file(path / "state.json"), (path / "state.json").string());
    fmt::print("step {} of {} tried, {}, best validation loss {}, written by {}\n", with_thousands(state.updates),
               with_thousands(state.attempts), counted(state.tokens, "token"),
               std::isfinite(state.best_validation_loss) ? human_loss(state.best_validation_loss) : "none yet",
               state.written_by);
  }
  if (is_huggingface_directory(path)) {
    const HfModel model = import_huggingface(path);
    fmt::print("model: {} in {}, {} tensors missing, {} unknown\n", model.model_type, model.dtype, model.missing.size(),
               model.unused.size());
  }
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(path))
    if (entry.path().extension() == ".safetensors") files.push_back(entry.path());
  std::ranges::sort(files);
  for (const fs::path& file : files) print_file(file, list);
}

void inspect_checkpoint(const CheckpointOptions& options) {
  const fs::path path = options.path;
  if (!fs::exists(path)) throw CheckpointError("{}: no such file or directory", path.string());
  if (!fs::is_directory(path)) return print_file(path, true);
  const fs::path root = fs::is_directory(path / "checkpoints") ? path / "checkpoints" : path;
  const auto entries = CheckpointDirectory(root).list();
  if (entries.empty()) return print_checkpoint(path, options.tensors);
  size_t damaged = 0;
  for (const CheckpointEntry& entry : entries) try {
      print_checkpoint(entry.path, options.tensors);
    } catch (const CheckpointError& error) {
      fmt::print("DAMAGED {}\n", error.what());
      ++damaged;
    }
  if (damaged > 0)
    throw CheckpointError("{}: {} of {} damaged", root.string(), damaged,
                          counted(int64_t(entries.size()), "checkpoint"));
}

struct EmbeddingOptions {
  std::string model, nearest, output;
  int64_t count = 10;
};

void inspect_embeddings(const EmbeddingOptions& options) {
  if (options.nearest.empty() && options.output.empty())
    throw ConfigError("inspect embeddings: expected --nearest WORD, --export FILE, or both");
  const Embeddings embeddings(options.model);
  const Tokenizer& tokenizer = embeddings.tokenizer();
  if (!options.nearest.empty()) {
    const std::vector<int32_t> tokens = embeddings.tokens_of(options.nearest);
    std::vector<std::string> spelled;
    for (const int32_t token : tokens) spelled.push_back(tokenizer.token_text(token));
    fmt::print("nearest to {}{} by cosine\n", tokens.size() > 1 ? "the mean of " : "", fmt::join(spelled, " "));
    for (const Neighbour& n : embeddings.nearest(tokens, options.count))
      fmt::print("{:8.4f}  {}\n", n.cosine, tokenizer.token_text(n.token));
  }
  if (options.output.empty()) return;
  embeddings.write_word2vec(options.output);
  fmt::print("{}: {} of {} numbers\n", options.output, counted(embeddings.count(), "vector"), embeddings.width());
}

void add_embeddings_command(Command& inspect) {
  Command command = inspect.subcommand("embeddings", "the vectors of a model's tokens: neighbours, word2vec's format");
  const auto options = std::make_shared<EmbeddingOptions>();
  command.option("model", options->model, "a run, a checkpoint or a Hugging Face directory").required();
  command.option("--nearest", options->nearest, "the tokens nearest to this word");
  command.option("--count,-n", options->count, "how many of them").range(1, 1e6);
  command.option("--export", options->output, "write all vectors to this file, in word2vec's text format");
  command.action([options] { inspect_embeddings(*options); });
}

}  // namespace

void add_inspect_command(Command& app) {
  Command inspect = app.subcommand("inspect", "look into files, models and number formats");
  inspect.require_subcommand();
  Command command = inspect.subcommand("checkpoint", "a run, checkpoint, model directory or safetensors file");
  const auto options = std::make_shared<CheckpointOptions>();
  command.option("path", options->path, "what to look into").required();
  command.flag("--tensors", options->tensors, "list every tensor");
  command.action([options] { inspect_checkpoint(*options); });
  add_embeddings_command(inspect);
  add_dtype_command(inspect);
}

}  // namespace mixtape
