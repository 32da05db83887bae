// A model on a device: back end, arena, parameters, tape, and the buffers of a micro-batch.
//
// On a GPU what is asked for here is queued, and the host goes on. It waits where a number or a prediction comes back:
// run_micro_batch and download_state.
//
// Everything that runs a model stands on it: training, evaluation, generation, parity checks. An engine without memory
// (EngineOptions::planning) goes through the same motions and counts.
#pragma once

#include <memory>

#include "core/model/quantisation.h"
#include "core/model/transformer.h"
#include "core/tape.h"
#include "train/devices.h"
#include "train/objective/batch.h"

namespace mixtape {

struct EngineOptions {
  ModelSpec model;
  DeviceOptions device;
  ComputeTypes types;
  bool training = false;  // gradients, master weights and moments too
  Moments moments;        // in training
  // In training: of masters and moments; summed gradients; and weights.
  Sharding sharding = {};
  bool sums = false, shards_weights = false;
  Communicator* layers = &single_process();  // the ranks that share out its layers; not owned
  // In training, outside of the device's memory: the optimizer's state; what layers keep for backward.
  bool offload_state = false, offload_activations = false;
  OffloadPlace offload_place = {};
  bool gradients = false;  // gradients without the rest (parity checks)
  GradientMemory gradient_memory = {};
  int64_t rows = 0;            // sequences of a micro-batch; 0: no batch buffers (generation)
  int64_t row_length = 0;      // tokens of a sequence
  int64_t decoder_length = 0;  // of a decoder's, where an encoder has row_length
  // Of a sequence. Where that is fewer than it has tokens, the head runs on those alone; 0: on all.
  int64_t most_targets = 0;
  double label_smoothing = 0;  // in training
  LoraSpec lora = {};
  QuantisationSpec quantisation = {};
  std::vector<std::string> frozen = {};  // parameters that do not learn
  bool int8_weights = false;             // inference with weights of linear layers as int8 codes
  RecomputePolicy recompute = RecomputePolicy::none;
  int64_t loss_chunk_rows = 0;

  SequenceLengths lengths() const { return {row_length, decoder_length, most_targets}; }
  Sharding layer_slice() const { return {layers->rank(), layers->size()}; }
};

// What a plan has found: bytes of the arena, and those outside of it that activations need.
struct EngineMemory {
  EngineMemory(int64_t arena_bytes, int64_t outside_bytes = 0)  // NOLINT: an arena alone is the usual case
      : arena(arena_bytes), activations_outside(outside_bytes) {}
  int64_t arena, activations_outside;
};

class Engine {
 public:
  // Without memory; for plans.
  explicit Engine(const EngineOptions& options);
  Engine(const EngineOptions& options, const EngineMemory& memory);
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  const EngineOptions& options() const { return options_; }
  Backend& backend() { return *backend_; }
  Arena& arena() { return arena_; }
  Transformer& model() { return model_; }
  const Transformer& model() const { return model_; }
  Parameters& parameters() { return *parameters_; }
  Tape& tape() { return *tape_; }
  // What the ranks that share out its layers exchange through; null: there is one.
  Exchange* layer_exchange() { return exchange_.get(); }
  // Throws Error if anything of what is offloaded has failed to come or go.
  void check_offload() const;
  // Null: no layer rounds its operands.
  Quantisation* quantisation() { return quantisation_.get(); }

  // Sends a micro-batch to the device, which may still compute the one before.
  void load(const Batch& batch);
  const ModelInputs& inputs() const { return inputs_; }
  // Of a micro-batch: the rows that the last stack has.
  int64_t predicting_rows() const {
    return options_.rows * (options_.decoder_length ? options_.decoder_length : options_.row_length);
  }

  // The host's copy of the step's state, which is the device's between steps, and its way there and back.
  StepState& state() { return host_state_; }
  StepState* device_state();
  void upload_state();
  void download_state();

  // The training of a step: begin_sum, then for each micro-batch load and train_micro_batch, which adds to gradients
  // and to the state's loss and goes on to the next micro-batch's random numbers.
  void begin_sum();
  void train_micro_batch() {
    train_micro_batch(first_micro_batch_ ? Work::first_micro_batch : Work::later_micro_batch);
  }
  // The same, but that whoever listens to gradients only measures them, in a step's only micro-batch.
  void measure_micro_batch() { train_micro_batch(Work::measured_micro_batch); }
  // Work of a step that is the same each time, for Backend::repeat. It must leave alone what it has not been given.
  enum class Work { first_micro_batch, later_micro_batch, measured_micro_batch, update };
  void repeat(Work id, const std::function<void()>& work);

  // Forward, and backward when `train`; returns the loss's share of the global mean (0 while planning).
  double run_micro_batch(bool train);
  // Of the last micro-batch without training: what was likeliest, one for each target, in the targets' order.
  const std::vector<int32_t>& predictions() const { return predictions_; }

 private:
  void train_micro_batch(Work id);
  void make_buffers(int64_t activations_outside);
  void make_inputs();
  // A stack's part of a batch on the host.
  struct StackRows {
    const std::vector<int32_t>&tokens, &positions;
    const std::vector<Segment>& segments;
  };
  // The memory of the host that becomes `input`; null in a plan.
  int32_t* place_of(const Tensor& input, std::byte* block) const;
  void load_stack(std::byte* block, const StackInputs& to, const StackRows& rows) const;
  void load_segments(std::byte* block, std::span<const Segment> segments, const Tensor& to, const Tensor& count) const;
  void load_targets(std::byte* block, const std::vector<int32_t>& targets) const;

  EngineOptions options_;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Exchange> exchange_;
  Arena arena_;
  Transformer model_;
  Tensor state_;
  std::unique_ptr<Parameters> parameters_;
  std::unique_ptr<Quantisation> quantisation_;
  std::unique_ptr<Tape> tape_;
  ModelInputs inputs_;
  Tensor block_;  // that all inputs lie in
  std::unique_ptr<Feed> feed_;
  bool first_micro_batch_ = true;
  std::vector<bool> written_;  // parameters whose gradient the last micro-batch has left
  StepState host_state_;
  std::vector<int32_t> predictions_;
};

// Adds padding rows (no tokens, no targets, in no segment) until the batch has options.rows.
void pad_batch(Batch& batch, const EngineOptions& options);
// A batch of nothing but padding, which is attended to row by row: its gradients are 0.
Batch batch_without_targets(const EngineOptions& options);

}  // namespace mixtape
