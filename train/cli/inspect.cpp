// mixtape inspect checkpoint PATH: what a checkpoint, a model directory or a safetensors file holds, and if it is
// whole.
#include <algorithm>
#include <cmath>
#include <memory>

#include "train/checkpoint/directory.h"
#include "train/checkpoint/huggingface/model.h"
#include "train/checkpoint/run_state.h"
#include "train/cli/commands.h"
#include "train/report/units.h"

namespace mixtape {
namespace {

namespace fs = std::filesystem;

struct Options {
  std::string path;
  bool tensors = false;
};

void print_tensor(const StoredTensor& tensor) {
  fmt::print("  {:<5} {:<20} {}\n", name_of(tensor.type), text_of(tensor.shape), tensor.name);
}

void print_file(const fs::path& path, bool list) {
  const SafetensorsFile file = SafetensorsFile::open(path);
  int64_t elements = 0;
  for (const StoredTensor& tensor : file.tensors()) elements += count_of(tensor.shape);
  fmt::print("{}: {}, {}\n", path.filename().string(), counted(int64_t(file.tensors().size()), "tensor"),
             counted(elements, "element"));
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
               std::isfinite(state.best_validation_loss) ? human_loss(state.best_validation_loss) : "none yet", state.written_by);
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

void inspect_checkpoint(const Options& options) {
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

}  // namespace

void add_inspect_command(Command& app) {
  Command inspect = app.subcommand("inspect", "look into files");
  inspect.require_subcommand();
  Command command = inspect.subcommand("checkpoint", "a run, checkpoint, model directory or safetensors file");
  const auto options = std::make_shared<Options>();
  command.option("path", options->path, "what to look into").required();
  command.flag("--tensors", options->tensors, "list every tensor");
  command.action([options] { inspect_checkpoint(*options); });
}

}  // namespace mixtape
