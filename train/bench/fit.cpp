#include "train/bench/fit.h"

#include <algorithm>
#include <charconv>

#include "train/bench/synthetic.h"
#include "train/step.h"

namespace mixtape {
namespace {

// A way to store states, as one writes it and as a configuration has it.
struct States {
  std::string settings;
  Config config;
  bool same_training = false;
};

bool is_sound(Config config) {
  leave_data_out(config);
  try {
    check(config, {}, build_features());
    return true;
  } catch (const ConfigError&) {
    return false;
  }
}

// The configuration's own, then from most bytes a parameter to least, as far as the other settings allow them.
std::vector<States> states_of(const Config& config) {
  std::vector<States> all = {{"", config, true}};
  const auto add = [&](const std::string& settings, auto change, bool same_training = false) {
    Config variant = config;
    change(variant);
    // Gradients that are fused into the update are of one micro-batch.
    const bool fused = variant.precision.gradients == GradientStorage::fused;
    if (fused) variant.train.micro_batch_size = variant.train.global_batch_size;
    if (is_sound(variant) && to_yaml(variant) != to_yaml(config)) all.push_back({settings, variant, same_training});
  };
  const auto bf16 = [](Config& c, MasterWeights master, GradientStorage gradients, MomentFormat moments) {
    c.precision.mode = PrecisionMode::bf16;
    c.precision.master = master, c.precision.gradients = gradients, c.precision.moments = moments;
  };
  add("precision.mode=bf16", [](Config& c) { c.precision.mode = PrecisionMode::bf16; });
  add("'precision={mode: bf16, master: remainder16, gradients: bf16, moments: bf16}'",
      [&](Config& c) { bf16(c, MasterWeights::remainder16, GradientStorage::bf16, MomentFormat::bf16); });
  add("'precision={mode: bf16, master: none, gradients: bf16, moments: bf16}'",
      [&](Config& c) { bf16(c, MasterWeights::none, GradientStorage::bf16, MomentFormat::bf16); });
  add("'precision={mode: bf16, master: none, gradients: bf16, moments: int8}'",
      [&](Config& c) { bf16(c, MasterWeights::none, GradientStorage::bf16, MomentFormat::int8); });
  add("'precision={mode: bf16, master: none, gradients: fused, moments: int8}' train.on_nonfinite.policy=rollback",
      [&](Config& c) {
        bf16(c, MasterWeights::none, GradientStorage::fused, MomentFormat::int8);
        c.train.on_nonfinite.policy = NonfinitePolicy::rollback;
      });
  add("optimizer.name=adafactor", [](Config& c) { c.optimizer.name = OptimizerKind::adafactor; });
  add(
      "memory.offload=optimizer", [](Config& c) { c.memory.offload = OffloadMode::optimizer; }, true);
  add("'precision={mode: bf16, gradients: fused}' train.on_nonfinite.policy=rollback memory.offload=optimizer",
      [&](Config& c) {
        bf16(c, MasterWeights::fp32, GradientStorage::fused, MomentFormat::fp32);
        c.train.on_nonfinite.policy = NonfinitePolicy::rollback;
        c.memory.offload = OffloadMode::optimizer;
      });
  return all;
}

// The largest micro-batch that divides the global one, that the settings allow, and that fits; or 0.
int64_t largest_micro_batch(Config config, int64_t bytes, MemoryPlan& of_it) {
  const int64_t global = config.train.global_batch_size;
  if (config.precision.gradients == GradientStorage::fused) {
    config.train.micro_batch_size = global;
    of_it = plan_training(training_options(config), config);
    return of_it.peak <= bytes ? global : 0;
  }
  std::vector<int64_t> sizes;
  for (int64_t n = 1; n <= global; ++n)
    if (global % n == 0) sizes.push_back(n);
  const auto plan = [&](int64_t size) {
    config.train.micro_batch_size = size;
    return plan_training(training_options(config), config);
  };
  const auto beyond =
      std::partition_point(sizes.begin(), sizes.end(), [&](int64_t n) { return plan(n).peak <= bytes; });
  if (beyond == sizes.begin()) return 0;
  of_it = plan(*(beyond - 1));
  return *(beyond - 1);
}

bool same_axes(const ModelSpec& a, const ModelSpec& b) {
  return a.family == b.family && a.position == b.position && a.norm == b.norm && a.norm_placement == b.norm_placement &&
         a.activation == b.activation && a.bias == b.bias && a.embedding_norm == b.embedding_norm &&
         a.token_types == b.token_types && a.mlm_head == b.mlm_head;
}

}  // namespace

int64_t bytes_of(const std::string& text, const std::string& what) {
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  std::string unit(end, text.data() + text.size());
  std::erase(unit, ' ');
  static constexpr std::pair<const char*, double> units[] = {
      {"", 1},      {"B", 1},         {"kB", 1e3},        {"MB", 1e6},     {"GB", 1e9},
      {"TB", 1e12}, {"KiB", 1024},    {"MiB", 1048576.0}, {"GiB", 0x1p30}, {"TiB", 0x1p40},
      {"K", 1024},  {"M", 1048576.0}, {"G", 0x1p30},      {"T", 0x1p40}};
  for (const auto& [name, factor] : units)
    if (error == std::errc() && unit == name && number > 0 && number * factor < 0x1p62) return int64_t(number * factor);
  throw ConfigError("{}: '{}', expected an amount of memory such as 24GiB, 800MB or 16e9", what, text);
}

std::vector<FittingOption> options_that_fit(const Config& config, int64_t bytes) {
  std::vector<FittingOption> options;
  for (const States& states : states_of(config))
    for (const RecomputeMode recompute : {RecomputeMode::selective, RecomputeMode::full}) {
      Config variant = states.config;
      variant.memory.recompute = recompute;
      FittingOption option{.settings = states.settings, .same_training = states.same_training};
      option.extra_flops = recompute == RecomputeMode::full ? 1.0 / 3 : 0;
      MemoryPlan plan;
      option.micro_batch_size = largest_micro_batch(variant, bytes, plan);
      if (option.micro_batch_size == 0) continue;
      option.peak_bytes = plan.peak, option.offloaded = plan.offloaded;
      option.settings += fmt::format("{}memory.recompute={}", option.settings.empty() ? "" : " ", name_of(recompute));
      options.push_back(std::move(option));
    }
  std::ranges::stable_sort(options, [](const FittingOption& a, const FittingOption& b) {
    return std::tuple(a.offloaded > 0, a.extra_flops, -a.micro_batch_size, !a.same_training) <
           std::tuple(b.offloaded > 0, b.extra_flops, -b.micro_batch_size, !b.same_training);
  });
  return options;
}

std::optional<FittingModel> largest_that_fits(const Config& config, int64_t bytes) {
  std::optional<FittingModel> best;
  for (const std::string& preset : preset_names()) {
    Config other = config;
    other.model = load_config({}, {"model.preset=" + preset}).config.model;
    if (!same_axes(other.model, config.model)) continue;
    const int64_t parameters = Transformer(other.model, 1, 1).layout().parameter_count();
    if (best && parameters <= best->parameters) continue;
    other.data.seq_length = std::min(other.data.seq_length, other.model.max_positions);
    const std::vector<FittingOption> options = options_that_fit(other, bytes);
    if (!options.empty()) best = {preset, parameters, options.front()};
  }
  return best;
}

}  // namespace mixtape
