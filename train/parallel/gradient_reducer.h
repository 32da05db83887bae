// What ranks exchange in a step: numbers of targets before it, gradients while backward makes them, sums of squares for
// their norm, losses, and after the update with parallel.zero_stage 1 and 2 the weights. docs/parallelism.md.
//
//   const StepCounts counts = reducer.begin(batch);
//   for (i < reducer.micro_batches()) {
//     if (reducer.starts_sum(i)) engine.begin_sum();
//     reducer.begin_micro_batch(i); ...forward, backward...; reducer.end_micro_batch(i);
//   }
//   reducer.finish_sums();
//   ...norm (share_squares), update...
//   reducer.share_weights();
//
// Buckets are exchanged in their order by jobs that Communicator::post takes, each of which also adds; backward goes on
// meanwhile. Stages 0 and 1 do so in the last micro-batch, stages 2 and 3 in each. One exchange is on its way while the
// next bucket fills: before a bucket is posted the one before is waited for.
//
// On GPUs exchanges are queued beside the computing in place of jobs, the device adds, and the host waits for none.
//
// With one rank, and in fast mode, all of it is nothing but additions in order.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "core/communicator.h"
#include "core/exchange.h"
#include "core/parameters.h"
#include "train/config/config.h"
#include "train/objective/batch.h"
#include "train/parallel/lane_fold.h"

namespace mixtape {

// What ranks share out.
Sharding sharding_of(const Config& config, const Communicator& ranks);
// Whether each micro-batch's gradients are summed over ranks at once (stages 2 and 3). Ranks then take micro-batches in
// turns, so that a sum over all of them goes through one place.
bool sums_each_micro_batch(const Config& config, const Communicator& ranks);

struct StepCounts {
  int64_t tokens = 0, targets = 0;  // of all ranks
};

class GradientReducer final : public BucketListener {
 public:
  // `device`: of memory that is not the host's, or null.
  GradientReducer(const Config& config, Parameters& parameters, Backend& backend, Communicator& ranks,
                  Exchange* device = nullptr);
  ~GradientReducer() override;

  StepCounts begin(const GlobalBatch& batch);
  // What this rank goes through. At stages 2 and 3 as many as any other, the last of them perhaps without a target.
  int64_t micro_batches() const { return here_; }
  // The number in the global step of this rank's i-th.
  uint64_t number_of(int64_t i) const { return uint64_t(first_ + i * stride_); }
  // Whether the gradients of this rank's i-th micro-batch overwrite those before.
  bool starts_sum(int64_t i) const { return lanes_ || sums_each_ || i == 0; }
  void begin_micro_batch(int64_t i) { now_ = i; }
  void end_micro_batch(int64_t i);
  void bucket_complete(int bucket) override;
  // The gradients of the whole step: on every rank, or its own parts of them.
  void finish_sums();
  // Of ranges (by core/ops/optimizer.h's range_squares) whose gradients this rank has, the others' being 0: all.
  void share_squares(const Tensor& squares);
  // float32: the largest of all ranks, NaN being above infinity. No number is negative.
  void share_largest(const Tensor& values);
  // The sum of the losses of all micro-batches of the step, in their order; `losses`: those of this rank's.
  double total(std::span<const double> losses);
  // After the update: the weights that other ranks have updated.
  void share_weights();

  Communicator& ranks() const { return ranks_; }

 private:
  // A bucket on its way.
  struct OnItsWay {
    int bucket = 0;
    int64_t micro_batch = 0;
    Tensor gradients, scratch;
  };
  void exchange_in_order(int bucket);
  void exchange(int bucket, const Tensor& gradients);
  void collect();
  int64_t sum_on_device(const OnItsWay& e);
  void sum_in_library_order(Communicator& c, const OnItsWay& e);
  void sum_in_lane_order(Communicator& c, const OnItsWay& e);
  void add_arrived(const OnItsWay& e);
  void fold(const OnItsWay& e);
  void add(const Tensor& to, const Tensor& from) const;
  void copy(const Tensor& to, const Tensor& from) const;
  void apply_moves(const Tensor& gradients, Run run);
  Tensor own_of(const OnItsWay& e) const;
  Tensor own_gradients(const OnItsWay& e) const;
  void fill_with_nothing();

  Parameters& parameters_;
  Backend& backend_;
  Communicator& ranks_;
  Exchange* const device_;
  const std::unique_ptr<Exchange> host_;
  const bool on_gpu_;  // also in a plan, which has no device_
  const int stage_;
  const bool sums_each_;
  const Shards shards_;            // by which buckets are exchanged
  std::optional<LaneFold> lanes_;  // in strict mode
  std::array<Tensor, LaneFold::places> kept_;
  int64_t micro_batches_ = 0, first_ = 0, stride_ = 1, here_ = 0;  // of the step, and of this rank
  int64_t now_ = -1;                                               // the micro-batch of this rank that is on; -1: none
  int next_bucket_ = 0;
  std::vector<Tensor> ready_;  // gradients of buckets that are complete, and not their turn yet
  OnItsWay on_its_way_;
  int64_t job_ = 0;       // of it, or the device's ticket
  int64_t gathered_ = 0;  // the device's ticket of the last bucket whose sum all have
  std::vector<int64_t> loss_bits_;
};

}  // namespace mixtape
