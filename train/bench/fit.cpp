#include "train/bench/fit.h"

#include <algorithm>
#include <charconv>
#include <functional>
#include <memory>

#include "train/bench/synthetic.h"
#include "train/step.h"

namespace mixtape {
namespace {

// A way to store and share out states, as one writes it and as a configuration has it.
struct States {
  std::string settings;
  Config config;
  bool same_training = false;
};

bool is_sound(Config config, int world) {
  leave_data_out(config);
  if (config.precision.gradients != GradientStorage::fused) config.train.micro_batch_size = 1;
  try {
    check(config, {}, build_features());
    check_ranks(config, world);
    return true;
  } catch (const ConfigError&) {
    return false;
  }
}

// Layers among more than the processes of a machine are slow.
constexpr int most_sharing = 8;

// The configuration's own, then from most bytes a parameter to least, as far as the other settings allow them; then of
// several processes the configuration's, shared out otherwise.
std::vector<States> states_of(const Config& config, int world) {
  std::vector<States> all;
  if (is_sound(config, world)) all.push_back({"", config, true});
  const auto add = [&](const std::string& settings, auto change, bool same_training = false) {
    Config variant = config;
    change(variant);
    // Gradients that are fused into the update are of one micro-batch.
    const bool fused = variant.precision.gradients == GradientStorage::fused;
    if (fused) variant.train.micro_batch_size = variant.train.global_batch_size;
    if (is_sound(variant, world) && to_yaml(variant) != to_yaml(config))
      all.push_back({settings, variant, same_training});
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
  add(
      "memory.offload=all", [](Config& c) { c.memory.offload = OffloadMode::all; }, true);
  add("'precision={mode: bf16, gradients: fused}' train.on_nonfinite.policy=rollback memory.offload=optimizer",
      [&](Config& c) {
        bf16(c, MasterWeights::fp32, GradientStorage::fused, MomentFormat::fp32);
        c.train.on_nonfinite.policy = NonfinitePolicy::rollback;
        c.memory.offload = OffloadMode::optimizer;
      });
  for (int64_t sharing = 1; world > 1 && sharing <= most_sharing; sharing *= 2)
    for (int64_t stage = 0; stage <= (sharing < world ? 3 : 0); ++stage)
      add(
          sharing == 1 ? fmt::format("parallel.zero_stage={}", stage)
                       : fmt::format("'parallel={{zero_stage: {}, tensor_parallel_size: {}}}'", stage, sharing),
          [&](Config& c) { c.parallel.zero_stage = stage, c.parallel.tensor_parallel_size = sharing; },
          sharing == config.parallel.tensor_parallel_size);
  return all;
}

// One of the processes, as the dry run sees it.
struct Planned {
  explicit Planned(const Config& config, int world)
      : ranks(planned_rank(world)),
        grid(*ranks, int(config.parallel.tensor_parallel_size)),
        options(training_options(config, grid)),
        memory(plan_training(options, config, grid)) {}
  std::unique_ptr<Communicator> ranks;
  RankGrid grid;
  EngineOptions options;
  MemoryPlan memory;
};

// Less than what a process needs in any case, without a dry run: weights, and gradients if all are of parameters that
// learn and are kept.
double least_bytes(const Config& c, int64_t parameters, int world) {
  const double of_layers = double(parameters) / double(c.parallel.tensor_parallel_size);
  const double groups = double(world) / double(c.parallel.tensor_parallel_size);
  const int64_t stage = c.parallel.zero_stage;
  const bool all_learn = c.lora.rank == 0 && c.parameters.freeze.empty();
  const double weights = double(size_of(compute_types(c.precision).compute));
  const double gradients = c.precision.gradients == GradientStorage::fused  ? 0
                           : c.precision.gradients == GradientStorage::bf16 ? 2
                                                                            : 4;
  return of_layers * (weights / (stage == 3 ? groups : 1) + (all_learn ? gradients / (stage >= 2 ? groups : 1) : 0));
}

// The largest micro-batch that divides a process's share of the global one, that the settings allow, and that fits; or
// 0.
int64_t largest_micro_batch(Config config, const Room& room) {
  const int64_t share = config.train.global_batch_size * config.parallel.tensor_parallel_size / room.world;
  const auto fits = [&](int64_t size) {
    config.train.micro_batch_size = size;
    return Planned(config, room.world).memory.peak <= room.bytes;
  };
  std::vector<int64_t> sizes;
  for (int64_t n = config.precision.gradients == GradientStorage::fused ? share : 1; n <= share; ++n)
    if (share % n == 0) sizes.push_back(n);
  const auto beyond = std::partition_point(sizes.begin(), sizes.end(), fits);
  return beyond == sizes.begin() ? 0 : *(beyond - 1);
}

void estimate_speed(const Config& config, const EngineOptions& options, const Room& room, FittingOption& option) {
  Transformer model(options.model, options.row_length, options.decoder_length, options.lora,
                    TensorParallel(options.layer_slice()));
  model.freeze(options.frozen);
  const StepTraffic traffic = step_traffic(config, options, model, room.world);
  option.exchanged = traffic.bytes();
  if (!room.speeds.known()) return;
  const double flops = model.flops_per_token(options.lengths()) * double(config.tokens_per_step());
  const double compute = (1 + option.extra_flops) * flops / room.world / room.speeds.flops;
  option.step_seconds = step_seconds(traffic, compute, room.speeds.bytes);
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

std::vector<FittingOption> options_that_fit(const Config& config, const Room& room) {
  std::vector<FittingOption> options;
  const int64_t parameters = Transformer(config.model, 1, 1).layout().parameter_count();
  for (const States& states : states_of(config, room.world)) {
    if (least_bytes(states.config, parameters, room.world) > double(room.bytes)) continue;
    int64_t stored = 0;  // the micro-batch that fits without more arithmetic
    for (const RecomputeMode recompute : {RecomputeMode::selective, RecomputeMode::full}) {
      Config variant = states.config;
      variant.memory.recompute = recompute;
      FittingOption option{.settings = states.settings, .same_training = states.same_training};
      option.extra_flops = recompute == RecomputeMode::full ? 1.0 / 3 : 0;
      option.micro_batch_size = variant.train.micro_batch_size = largest_micro_batch(variant, room);
      if (option.micro_batch_size <= stored) continue;
      stored = option.micro_batch_size;
      const Planned planned(variant, room.world);
      option.peak_bytes = planned.memory.peak, option.offloaded = planned.memory.offloaded;
      estimate_speed(variant, planned.options, room, option);
      option.settings += fmt::format("{}memory.recompute={}", option.settings.empty() ? "" : " ", name_of(recompute));
      options.push_back(std::move(option));
    }
  }
  const auto speed = [](const FittingOption& o) {
    return std::tuple(o.offloaded > 0, o.step_seconds, o.extra_flops, o.exchanged, -o.micro_batch_size,
                      !o.same_training);
  };
  std::ranges::stable_sort(options, std::less(), speed);
  return options;
}

std::optional<FittingModel> largest_that_fits(const Config& config, const Room& room) {
  struct Candidate {
    std::string preset;
    Config config;
    int64_t parameters = 0;
  };
  std::vector<Candidate> candidates;
  for (const std::string& preset : preset_names()) {
    Config other = config;
    other.model = load_config({}, {"model.preset=" + preset}).config.model;
    if (!same_axes(other.model, config.model)) continue;
    other.data.seq_length = std::min(other.data.seq_length, other.model.max_positions);
    const int64_t parameters = Transformer(other.model, 1, 1).layout().parameter_count();
    constexpr int64_t narrowest = sizeof(bf16);  // weights alone
    if (parameters * narrowest / room.world <= room.bytes) candidates.push_back({preset, other, parameters});
  }
  std::ranges::stable_sort(candidates, std::greater(), &Candidate::parameters);
  for (const Candidate& c : candidates)
    if (const auto options = options_that_fit(c.config, room); !options.empty())
      return FittingModel{c.preset, c.parameters, options.front()};
  return {};
}

}  // namespace mixtape
