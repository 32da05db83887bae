// The update rule that a configuration asks for, over a model's parameters.
#pragma once

#include <functional>
#include <memory>
#include <string_view>
#include <vector>

#include "core/exchange.h"
#include "core/parameters.h"
#include "core/state_stage.h"
#include "train/config/config.h"

namespace mixtape {

// What the rule keeps of earlier gradients, and in which format.
Moments moments_of(const Config& config);

class Optimizer {
 public:
  // `layers`: what the ranks that share out each layer exchange through; null: this one has all. Not owned.
  Optimizer(const Config& config, Parameters& parameters, Backend& backend, Exchange* layers = nullptr);

  // The norm of the gradients, whether all are finite, and the factor that clips them. `state` is on the device. Of
  // several ranks that have parts of the gradients `share` adds up the squares that they have made (RangeSquares).
  void measure_gradients(StepState* state, const std::function<void(const Tensor& squares)>& share = {}) const;
  // One update, unless the gradients were not finite.
  void update(StepState* state) const;
  // Of gradients that are there a bucket at a time: measures a bucket as a part of the step's.
  void measure_bucket(int bucket, StepState* state) const;
  // The same, and updates its parameters, unless it or one before was not finite.
  void apply_bucket(int bucket, StepState* state) const;

  std::string_view name() const { return name_of(config_.name); }

 private:
  // What is updated at once: a run of the flat buffers, its tensors and ranges, counted from where it begins. Where the
  // state is offloaded, a part is updated in pieces, of which one is in memory.
  struct Part {
    Shards::Part place;
    int64_t first_tensor = 0, first_range = 0;  // of all
    std::vector<UpdateTensor> tensors;
    std::vector<UpdateRange> ranges;
    std::vector<UpdateRange> beside_muon;  // those that AdamW updates then
    std::vector<UpdateRange> counted;      // empty where another rank counts their squares
    std::vector<Part> pieces;
    int number = 0;  // of a piece
  };
  // A part of each buffer, as rules take them.
  struct Buffers {
    const Part& part;
    StepState* state;
    Tensor weights, master, gradients, scales;
    Moment m, v;  // v: whole where it is not of every element
  };
  Part part_of(const Part& all, Shards::Part place) const;
  void cut_into_pieces();
  Tensor squares_of_own() const;
  std::vector<UpdateRange> counted(std::vector<UpdateRange> ranges) const;
  void join_norms(StepState* state) const;
  void measure(const Tensor& squares, const std::vector<UpdateRange>& ranges, StepState* state) const;
  void measure(const Part& part, const Tensor& gradients, bool adds, StepState* state) const;
  void update(const Part& part, const Tensor& gradients, StepState* state) const;
  void update(const Part& part, const Tensor& gradients, const UpdateState& kept, StepState* state) const;
  Tensor readable(const Tensor& gradients) const;
  Tensor measured_scales(const Buffers& b) const;
  void adamw_update(const Buffers& b, const std::vector<UpdateRange>& ranges) const;
  void sgd_update(const Buffers& b) const;
  void lion_update(const Buffers& b) const;
  void muon_update(const Buffers& b) const;
  void adafactor_update(const Buffers& b) const;

  OptimizerConfig config_;
  float clip_;
  uint64_t seed_;  // of stochastic rounding
  Parameters& parameters_;
  Backend& backend_;
  Part all_;                   // all that learns
  std::vector<Part> own_;      // this rank's parts of it
  std::vector<Part> buckets_;  // where each is applied alone
  Tensor scales_;              // of the tensors, where steps are relative to them
  Exchange* const layers_;
  std::vector<UpdateRange> of_layers_;  // a sum of each rank that shares out layers
  std::unique_ptr<StateStage> stage_;   // of offloaded state
};

}  // namespace mixtape
