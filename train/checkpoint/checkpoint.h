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
  LoraSpec lora;                        // rank 0: no adapters
  std::vector<ConstTensorRef> model;    // every parameter of the spec and of adapters, by Mixtape's name and shape
  ParameterGetter weights = {};         // in place of their data, where that is null
  std::vector<TensorSource> optimizer;  // masters and moments
  TensorWriter write = write_alone;     // of all files of tensors
  RunState state;
  SpecialIds ids;
  std::vector<std::filesystem::path> tokenizer_files;  // copied under their own names
};

// Writes a checkpoint of step state.updates into the directory and returns its path. CheckpointError if the disk is
// full or fails: nothing is left behind then, the older checkpoints stay, and the caller may go on training.
std::filesystem::path save_checkpoint(const CheckpointDirectory& directory, const CheckpointContents& contents);

// Reads a checkpoint that newest_whole() or verify_checkpoint() found whole.
class CheckpointReader {
 public:
  explicit CheckpointReader(std::filesystem::path path);

  const std::filesystem::path& path() const { return path_; }
  const RunState& state() const { return state_; }
  // In two steps, so that a caller need not hold all of them at once. First all of the model's tensors, each with its
  // type and shape (their data may be null); the error lists missing and unexpected names. Then some of them, to fill.
  void expect_model(std::span<const TensorRef> tensors) const;
  void read_model(std::span<const TensorRef> tensors) const;
  // The same of masters and moments.
  void expect_optimizer(std::span<const TensorRef> tensors) const;
  void read_optimizer(std::span<const TensorRef> tensors) const;
  // Of one of them the bytes in the file, mapped.
  std::span<const std::byte> optimizer_bytes(const std::string& name) const { return optimizer_.at(name).data; }

 private:
  std::filesystem::path path_;
  RunState state_;
  HfModel model_;
  SafetensorsFile optimizer_;
};

}  // namespace mixtape
