// eval, checkpoint, logging: what a run measures, keeps and shows.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "core/base/fields.h"

namespace mixtape {

struct EvalConfig {
  int64_t interval = 200;
  int64_t tokens = 65536;
};

constexpr auto fields(std::type_identity<EvalConfig>) {
  using C = EvalConfig;
  return std::tuple{
      field("interval", &C::interval, "updates between validations, and one at the end; 0: never", Range{0, 1e12},
            Aliases{"eval_interval", "val_check_interval"}),
      field("tokens", &C::tokens,
            "tokens of each validation, always the same ones; sources share them by weight, and each has a loss of its "
            "own",
            Range{1, 1e15}),
  };
}

struct CheckpointConfig {
  int64_t interval = 500;
  int64_t keep_last = 2;
  std::optional<int64_t> keep_every;
  bool keep_best = true;
  bool export_at_end = true;
};

constexpr auto fields(std::type_identity<CheckpointConfig>) {
  using C = CheckpointConfig;
  return std::tuple{
      field("interval", &C::interval, "updates between checkpoints, and one at the end; 0: only at the end",
            Range{0, 1e12}, Aliases{"save_interval"}),
      field("keep_last", &C::keep_last, "how many of the newest checkpoints are kept", Range{1, 1e6},
            Aliases{"keep_latest_k"}),
      field("keep_every", &C::keep_every, "also keep each checkpoint whose step is a multiple of this; null: none",
            Range{1, 1e12}),
      field("keep_best", &C::keep_best,
            "also keep the checkpoint with the least validation loss, of those saved at a step that was validated"),
      field("export_at_end", &C::export_at_end, "write the final weights as a Hugging Face directory too"),
  };
}

struct LoggingConfig {
  int64_t interval = 10;
  bool tensorboard = true;
  int64_t sample_interval = 500;
  int64_t sample_tokens = 64;
  double sample_temperature = 0.8;
  std::vector<std::string> sample_prompts = {""};
};

constexpr auto fields(std::type_identity<LoggingConfig>) {
  using C = LoggingConfig;
  return std::tuple{
      field("interval", &C::interval, "updates between lines of progress", Range{1, 1e12},
            Aliases{"log_interval", "log_freq"}),
      field("tensorboard", &C::tensorboard, "write TensorBoard event files", Aliases{"enable_tensorboard"}),
      field("sample_interval", &C::sample_interval,
            "updates between generated samples, and some at the end; 0: never. Encoders generate none", Range{0, 1e12}),
      field("sample_tokens", &C::sample_tokens, "tokens generated for each prompt", Range{1, 65536}),
      field("sample_temperature", &C::sample_temperature, "0: the likeliest token each time", Range{0, 100}),
      field("sample_prompts", &C::sample_prompts, "what samples begin with; an empty text begins a document"),
  };
}

}  // namespace mixtape
