// A checkpoint's contents: the model, the optimizer's state, the run's state, and what the model needs to be used.
//
//   model.safetensors       the weights in their stored type, under Hugging Face's names (huggingface/model.h)
//   config.json             the architecture; with model.safetensors a directory that transformers loads
//   adapter_model.safetensors, adapter_config.json   of a run with LoRA (huggingface/adapter.h); the model is then the
//                           one that it started from, but for a head of labels
//   optimizer.safetensors   master.NAME, m.NAME, v.NAME and others that an update rule keeps, under Mixtape's names
//   state.json              RunState
//   config.resolved.yaml    the run's configuration
//   tokenizer.json, ...     as the run used them
//   manifest.json           see directory.h
#pragma once

#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "core/base/dtype.h"
#include "core/model/lora.h"
#include "core/model/spec.h"
#include "train/checkpoint/directory.h"
#include "train/checkpoint/huggingface/model.h"
#include "train/checkpoint/run_state.h"
#include "train/checkpoint/safetensors.h"

namespace mixtape {

// A named tensor in the caller's memory, row-major and unsharded.
struct ConstTensorRef {
  std::string name;
  DType dtype = DType::f32;
  Extents shape;
  const void* data = nullptr;
};
struct TensorRef {
  std::string name;
  DType dtype = DType::f32;
  Extents shape;
  void* data = nullptr;
};

struct CheckpointContents {
  ModelSpec spec;
  LoraSpec lora;                          // rank 0: no adapters
  std::vector<ConstTensorRef> model;      // every parameter of the spec and of adapters, by Mixtape's name and shape
  std::vector<ConstTensorRef> optimizer;  // masters and moments
  // In place of these where no process has all of them: writes optimizer.safetensors to this path.
  std::function<FileRecord(const std::filesystem::path&)> write_optimizer;
  RunState state;
  SpecialIds ids;
  std::vector<std::filesystem::path> tokenizer_files;  // copied under their own names
};

// Of tensors in the caller's memory.
FileRecord write_optimizer_file(const std::filesystem::path& path, std::span<const ConstTensorRef> tensors);

// Writes a checkpoint of step state.updates into the directory and returns its path. CheckpointError if the disk is
// full or fails: nothing is left behind then, the older checkpoints stay, and the caller may go on training.
std::filesystem::path save_checkpoint(const CheckpointDirectory& directory, const CheckpointContents& contents);

// Reads a checkpoint that newest_whole() or verify_checkpoint() found whole.
class CheckpointReader {
 public:
  explicit CheckpointReader(std::filesystem::path path);

  const std::filesystem::path& path() const { return path_; }
  const RunState& state() const { return state_; }
  // Fills the caller's buffers, which must be all of the model's tensors, each with its type and shape; the error lists
  // missing and unexpected names.
  void read_model(std::span<const TensorRef> tensors) const;
  // The same of masters and moments in two steps, so that a caller need not hold all of them at once: `tensors` are all
  // of the checkpoint's (their data may be null), and then some of them.
  void expect_optimizer(std::span<const TensorRef> tensors) const;
  void read_optimizer(std::span<const TensorRef> tensors) const;
  // Of one of them the bytes in the file, mapped.
  std::span<const std::byte> optimizer_bytes(const std::string& name) const { return optimizer_.at(name).data; }

 private:
  std::filesystem::path path_;
  RunState state_;
  SafetensorsFile optimizer_;
};

}  // namespace mixtape
