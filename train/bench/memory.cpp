#include "train/bench/memory.h"

#include <fstream>

#include "train/bench/synthetic.h"
#include "train/device_memory.h"

namespace mixtape {
namespace {

// Of all gradients, or of this rank's sums of them, or the largest bucket of transient ones.
int64_t gradient_bytes_of(const EngineOptions& options) {
  Engine dry(options);
  const GradientBuckets& buckets = dry.parameters().buckets();
  if (dry.parameters().sums) return dry.parameters().sums.bytes();
  return buckets.flat() ? buckets.flat().bytes() : buckets.largest() * size_of(options.gradient_memory.dtype);
}

void choose_objective(Config& config) {
  ObjectiveKind& name = config.objective.name;
  if (config.model.family == Family::encoder && name == ObjectiveKind::causal_lm) name = ObjectiveKind::masked_lm;
  if (config.model.family == Family::encoder_decoder && name == ObjectiveKind::causal_lm)
    name = ObjectiveKind::span_corruption;
}

// None where the system does not say.
std::optional<int64_t> bytes_in_use(const EngineOptions& options) {
  if (const std::optional<int64_t> of_gpu = device_memory_in_use(options.device)) return of_gpu;
  const int64_t bytes = anonymous_bytes();
  return bytes > 0 ? std::optional(bytes) : std::nullopt;
}

// As plan_training goes: a step, then a validation.
void run_step(const Config& config, const EngineOptions& options, MemoryBench& result) {
  const std::optional<int64_t> before = bytes_in_use(options);
  Engine engine(options, result.predicted.memory());
  engine.parameters().initialise(uint64_t(config.seed));
  TrainingStep step(engine, config);
  step.run(synthetic_batch(config), config.optimizer.lr);
  engine.run_micro_batch(false);
  const std::optional<int64_t> after = bytes_in_use(options);
  if (before && after) result.measured = *after - *before;
  result.counted_peak = engine.arena().peak();
  result.counted = engine.arena().at_peak();
  if (result.counted_peak != result.predicted.peak || result.counted != result.predicted.at_peak)
    throw Error("memory: the plan says {} bytes and the arena counted {}: a defect of the plan", result.predicted.peak,
                result.counted_peak);
}

}  // namespace

const std::vector<MemoryMode>& memory_modes() {
  const std::string bf16 = "precision.mode=bf16", no_master = "precision.master=none",
                    bf16_gradients = "precision.gradients=bf16", bf16_moments = "precision.moments=bf16",
                    int8_moments = "precision.moments=int8", fused = "precision.gradients=fused",
                    stop = "train.on_nonfinite.policy=stop", recompute = "memory.recompute=full",
                    offload = "memory.offload=optimizer";
  static const std::vector<MemoryMode> modes = {
      {"bf16, fp32 master", {"precision.mode=bf16"}},
      {"fp32", {"precision.mode=fp32"}},
      {"fp32, recompute", {"precision.mode=fp32", "memory.recompute=full"}},
      {"fp32, offloaded", {"precision.mode=fp32", offload}},
      {"fp32, layers offloaded", {"precision.mode=fp32", "memory.offload=activations"}},
      {"recompute, all offloaded", {"precision.mode=fp32", recompute, "memory.offload=all"}},
      {"bf16, no master", {bf16, no_master}},
      {"bf16, no master, recompute", {bf16, no_master, recompute}},
      {"remainder, bf16", {bf16, "precision.master=remainder16", bf16_gradients, bf16_moments}},
      {"all bf16", {bf16, no_master, bf16_gradients, bf16_moments}},
      {"bf16, int8 moments", {bf16, no_master, bf16_gradients, int8_moments}},
      {"int8 moments, fused", {bf16, no_master, fused, stop, int8_moments}},
      {"the same, recompute", {bf16, no_master, fused, stop, int8_moments, recompute}},
      {"fused, all offloaded", {bf16, fused, stop, recompute, offload}},
      {"bf16, Adafactor", {"precision.mode=bf16", "optimizer.name=adafactor"}},
      {"fp32, Adafactor", {"precision.mode=fp32", "optimizer.name=adafactor"}},
  };
  return modes;
}

const std::vector<MemoryMode>& sharing_modes() {
  const std::string bf16 = "precision.mode=bf16", by_two = "parallel.tensor_parallel_size=2";
  static const std::vector<MemoryMode> modes = {
      {"bf16, stage 0", {bf16}},
      {"bf16, stage 1", {bf16, "parallel.zero_stage=1"}},
      {"bf16, stage 2", {bf16, "parallel.zero_stage=2"}},
      {"bf16, stage 3", {bf16, "parallel.zero_stage=3"}},
      {"bf16, layers/2", {bf16, by_two}},
      {"bf16, layers/2, stage 3", {bf16, by_two, "parallel.zero_stage=3"}},
  };
  return modes;
}

int64_t anonymous_bytes() {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;)
    if (word == "RssAnon:") {
      int64_t kilobytes = 0;
      status >> kilobytes;
      return kilobytes * 1024;
    }
  return 0;
}

MemoryBench bench_memory(ResolvedConfig resolved, bool run, int world) {
  leave_data_out(resolved.config);
  choose_objective(resolved.config);
  check(resolved.config, resolved.origins, build_features());
  const Config& config = resolved.config;
  if (world == 1) expect_nothing_shared(config, "bench memory", "say among how many with --world");
  check_ranks(config, world, resolved.origins);
  const std::unique_ptr<Communicator> ranks = planned_rank(world);
  const RankGrid grid =
      world == 1 ? RankGrid(single_process()) : RankGrid(*ranks, int(config.parallel.tensor_parallel_size));
  const EngineOptions options = synthetic_options(config, grid);
  MemoryBench result;
  result.predicted = plan_training(options, config, grid);
  result.gradient_bytes = gradient_bytes_of(options);
  result.state_bytes = result.gradient_bytes;
  for (const Category c : {Category::parameters, Category::master, Category::optimizer})
    result.state_bytes += result.predicted.at_peak[size_t(c)];
  result.parameters = Transformer(options.model, options.row_length, options.decoder_length).layout().parameter_count();
  result.tokens = options.rows * (options.row_length + options.decoder_length);
  if (run) run_step(config, options, result);
  return result;
}

}  // namespace mixtape
