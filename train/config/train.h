// train: the batch, the length of the run, and what happens when numbers are not finite.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <tuple>

#include "core/base/fields.h"

namespace mixtape {

enum class NonfinitePolicy { skip, stop, rollback };

constexpr auto names(std::type_identity<NonfinitePolicy>) {
  using E = NonfinitePolicy;
  return std::array{Named<E>{E::skip, "skip"}, Named<E>{E::stop, "stop"}, Named<E>{E::rollback, "rollback"}};
}

struct NonfiniteConfig {
  NonfinitePolicy policy = NonfinitePolicy::skip;
  int64_t limit = 10;
};

constexpr auto fields(std::type_identity<NonfiniteConfig>) {
  using C = NonfiniteConfig;
  return std::tuple{
      field("policy", &C::policy,
            "skip: drop the step's gradients and go on; stop: end with an error; rollback: go back to the last "
            "checkpoint and on with the data after the failure. A step that the fp16 loss scaler drops while its scale "
            "falls is no failure"),
      field("limit", &C::limit, "end with an error after so many skipped steps in a row, or so many rollbacks",
            Range{1, 1e9}),
  };
}

struct BatchRampConfig {
  int64_t tokens = 0;
  Auto<int64_t> start;
};

constexpr auto fields(std::type_identity<BatchRampConfig>) {
  using C = BatchRampConfig;
  return std::tuple{
      field("tokens", &C::tokens,
            "the batch grows evenly until so many tokens are over (GPT-3: 4 to 12 billion), in steps of "
            "micro_batch_size; schedules go by updates all the same. 0: no ramp",
            Range{0, 1e18}),
      field("start", &C::start, "sequences in the first update; auto: micro_batch_size", Range{1, 1 << 28}),
  };
}

// In which steps, with precision.gradients fused, the norm to clip by is measured before the gradients are applied.
enum class ClipPass { warmup, always, never };

constexpr auto names(std::type_identity<ClipPass>) {
  using E = ClipPass;
  return std::array{Named<E>{E::warmup, "warmup"}, Named<E>{E::always, "always"}, Named<E>{E::never, "never"}};
}

struct TrainConfig {
  int64_t micro_batch_size = 4;
  int64_t global_batch_size = 32;
  BatchRampConfig batch_ramp;
  std::optional<int64_t> max_steps;
  std::optional<int64_t> max_tokens;
  std::optional<int64_t> stop_at_step;
  double clip_grad = 1.0;
  ClipPass clip_pass = ClipPass::warmup;
  NonfiniteConfig on_nonfinite;
};

constexpr auto fields(std::type_identity<TrainConfig>) {
  using C = TrainConfig;
  return std::tuple{
      field("micro_batch_size", &C::micro_batch_size, "sequences that a device computes at once", Range{1, 1 << 20}),
      field("global_batch_size", &C::global_batch_size,
            "sequences in an update, over all devices and accumulated micro-batches", Range{1, 1 << 28}),
      field("batch_ramp", &C::batch_ramp, "a batch that is small at first"),
      field("max_steps", &C::max_steps, "length of the run in updates (or max_tokens: exactly one)", Range{1, 1e12},
            Aliases{"train_iters", "max_iters", "steps"}),
      field("max_tokens", &C::max_tokens,
            "length of the run in tokens, rounded up to whole updates of global_batch_size * data.seq_length",
            Range{1, 1e18}),
      field("stop_at_step", &C::stop_at_step,
            "save and end at this update, with the schedule of the whole run; the same command without it goes on. "
            "null: never",
            Range{1, 1e12}),
      field("clip_grad", &C::clip_grad, "largest norm of the whole gradient, scaled down to it; 0: no clipping",
            Range{0, 1e9}, Aliases{"max_norm", "max_grad_norm", "gradient_clip_val", "grad_clip"}),
      field(
          "clip_pass", &C::clip_pass,
          "of precision.gradients fused: in which steps a forward and backward of its own measures the norm first, so "
          "that clipping is exact and the step takes twice as long: warmup, those of schedule.warmup_steps. In the "
          "others the norm of the step before counts (docs/memory.md)"),
      field("on_nonfinite", &C::on_nonfinite, "what to do when the loss or a gradient is not finite"),
  };
}

}  // namespace mixtape
