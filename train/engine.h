// A model on a device: back end, arena, parameters, tape, and the buffers of a micro-batch.
//
// Everything that runs a model stands on it: training, evaluation, generation, parity checks. An engine without memory
// (EngineOptions::planning) goes through the same motions and counts.
#pragma once

#include <memory>

#include "core/model/transformer.h"
#include "core/tape.h"
#include "train/devices.h"
#include "train/objective/batch.h"

namespace mixtape {

struct EngineOptions {
  ModelSpec model;
  DeviceOptions device;
  ComputeTypes types;
  bool training = false;   // gradients, master weights and moments too
  bool gradients = false;  // gradients without the rest (parity checks)
  int64_t rows = 0;        // sequences of a micro-batch; 0: no batch buffers (generation)
  int64_t row_length = 0;  // tokens of a sequence
  RecomputePolicy recompute = RecomputePolicy::none;
  int64_t loss_chunk_rows = 0;
};

class Engine {
 public:
  // Without memory; for plans.
  explicit Engine(const EngineOptions& options);
  // With an arena of `capacity` bytes, which a plan has found.
  Engine(const EngineOptions& options, int64_t capacity);
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  const EngineOptions& options() const { return options_; }
  Backend& backend() { return *backend_; }
  Arena& arena() { return arena_; }
  Transformer& model() { return model_; }
  const Transformer& model() const { return model_; }
  Parameters& parameters() { return *parameters_; }
  Tape& tape() { return *tape_; }

  // Copies a micro-batch to the device.
  void load(const Batch& batch);
  const ModelInputs& inputs() const { return inputs_; }

  // The host's copy of the step's state, and its way to the device and back.
  StepState& state() { return host_state_; }
  StepState* device_state();
  void upload_state();
  void download_state();

  // Forward, and backward when `train`; returns the loss's share of the global mean (0 while planning).
  double run_micro_batch(bool train);

 private:
  void make_buffers();

  EngineOptions options_;
  std::unique_ptr<Backend> backend_;
  Arena arena_;
  Transformer model_;
  Tensor state_;
  std::unique_ptr<Parameters> parameters_;
  std::unique_ptr<Tape> tape_;
  ModelInputs inputs_;
  StepState host_state_;
};

}  // namespace mixtape
