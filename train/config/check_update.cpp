// Rules across keys of the update: its rule, and the types in which weights, gradients and moments are kept.
#include <algorithm>

#include "train/config/rules.h"

namespace mixtape {
namespace {

// The update rules that read a key of the section; none: all do.
std::vector<OptimizerKind> readers_of(std::string_view name) {
  using enum OptimizerKind;
  if (name == "betas") return {adamw, adam, lion, muon};
  if (name == "eps" || name == "bias_correction") return {adamw, adam, muon};
  if (name == "scale_parameter") return {adamw, adam, adafactor};
  for (const OptimizerKind kind : {adafactor, sgd, muon})
    if (name.starts_with(fmt::format("{}.", kind))) return {kind};
  return {};
}

bool rounds_operands(PrecisionMode mode) { return mode == PrecisionMode::fp8 || mode == PrecisionMode::int8_qat; }

void check_quantisation(const Config& c, Rules& rules) {
  const PrecisionMode mode = c.precision.mode;
  if (mode != PrecisionMode::fp8)
    each_changed(c, "precision.fp8", [&](const std::string& key, std::string_view) {
      rules.refuse(key, fmt::format("which has no effect with precision.mode {}; it is for fp8", mode));
    });
  if (!rounds_operands(mode)) return;
  if (c.parallel.tensor_parallel_size != 1)
    rules.refuse("precision.mode",
                 "but parallel.tensor_parallel_size cuts the tensors whose largest magnitude decides "
                 "a scale; use bf16, or parallel.tensor_parallel_size 1");
  if (mode == PrecisionMode::fp8 && c.parallel.zero_stage >= 2)
    rules.refuse("parallel.zero_stage",
                 "expected 0 or 1 with precision.mode fp8: beyond, ranks take micro-batches in "
                 "turns, and what one computes when none is left would enter the scales");
}

void check_master(const Config& c, Rules& rules) {
  const PrecisionConfig& p = c.precision;
  if (p.master == MasterWeights::fp32) return;
  if (p.master == MasterWeights::remainder16 && p.mode == PrecisionMode::fp16)
    return rules.refuse("precision.master", "which completes bf16 to fp32; with precision.mode fp16 use fp32 or none");
  if (p.mode == PrecisionMode::fp32 || p.mode == PrecisionMode::tf32)
    rules.refuse("precision.master",
                 fmt::format("which has no effect with precision.mode {}: its weights are fp32", p.mode));
  if (c.optimizer.name == OptimizerKind::adafactor)
    rules.refuse("precision.master", "expected fp32 with optimizer.name adafactor; other rules can do without");
  else if (c.optimizer.scales_parameters())
    rules.refuse("precision.master", "expected fp32 with optimizer.scale_parameter, which measures fp32 weights");
}

void check_moments(const Config& c, Rules& rules) {
  const MomentFormat format = c.precision.moments;
  if (format == MomentFormat::fp32) return;
  const OptimizerConfig& o = c.optimizer;
  if (o.name == OptimizerKind::adafactor)
    rules.refuse("precision.moments",
                 "expected fp32 with optimizer.name adafactor, which keeps rows and columns alone");
  if (o.name == OptimizerKind::sgd && o.sgd.momentum == 0)
    rules.refuse("precision.moments", "which has no effect with optimizer.sgd.momentum 0: there are none");
  const bool blocks = format == MomentFormat::int8 || format == MomentFormat::fp8;
  const bool apart = o.name == OptimizerKind::muon || o.scales_parameters();
  if (blocks && apart && o.name != OptimizerKind::adafactor)
    rules.refuse(
        "precision.moments",
        fmt::format("expected fp32 or bf16 with {}: tensors that are stored as one are taken apart there, and a "
                    "block of 256 moments with one scale could be of two",
                    o.name == OptimizerKind::muon ? "optimizer.name muon" : "optimizer.scale_parameter"));
}

// Gradients of 16 bits, and those that backward applies.
void check_gradients(const Config& c, Rules& rules) {
  const PrecisionConfig& p = c.precision;
  if (p.gradients != GradientStorage::fused && c.train.clip_pass != TrainConfig{}.clip_pass)
    rules.refuse("train.clip_pass",
                 fmt::format("which has no effect with precision.gradients {}: clipping is exact", p.gradients));
  if (p.gradients == GradientStorage::fp32) return;
  if (p.gradients == GradientStorage::bf16) {
    if (p.mode != PrecisionMode::bf16 && !rounds_operands(p.mode))
      rules.refuse("precision.gradients", fmt::format("expected fp32 or fused with precision.mode {}: gradients are in "
                                                      "fp32 or in the type of the weights",
                                                      p.mode));
    if (c.optimizer.name == OptimizerKind::adafactor)
      rules.refuse("precision.gradients",
                   fmt::format("expected fp32 or fused with optimizer.name {}, which reads fp32", c.optimizer.name));
    return;
  }
  if (p.mode == PrecisionMode::fp16)
    rules.refuse(
        "precision.gradients",
        "but whether fp16's loss scale was too large is known when all gradients are, and some would be applied "
        "by then; use precision.mode bf16");
  if (c.train.global_batch_size != c.train.micro_batch_size)
    rules.refuse(
        "train.global_batch_size",
        fmt::format("expected train.micro_batch_size ({}) with precision.gradients fused: a gradient is applied "
                    "at once, so that none of another micro-batch can be added",
                    c.train.micro_batch_size));
  const bool knows_all = c.train.clip_pass == ClipPass::always && c.train.clip_grad > 0;
  if (c.train.clip_pass == ClipPass::always && c.train.clip_grad == 0)
    rules.refuse("train.clip_pass", "which has no effect with train.clip_grad 0: nothing is clipped");
  if (c.train.on_nonfinite.policy == NonfinitePolicy::skip && !knows_all)
    rules.refuse("train.on_nonfinite.policy",
                 "expected rollback or stop with precision.gradients fused: when a gradient is found not to be finite, "
                 "others of the step are applied already, so that it cannot be skipped; train.clip_pass always, which "
                 "takes twice the time, finds it before");
}

}  // namespace

void check_optimizer(const Config& c, Rules& rules) {
  const OptimizerConfig& o = c.optimizer;
  if (o.name == OptimizerKind::lamb)
    return rules.unavailable("optimizer.name", "adamw, adam, adafactor, lion, muon and sgd");
  each_changed(c, "optimizer", [&](const std::string& key, std::string_view name) {
    const std::vector<OptimizerKind> readers = readers_of(name);
    if (readers.empty() || std::ranges::find(readers, o.name) != readers.end()) return;
    rules.refuse(
        key, fmt::format("which has no effect with optimizer.name {}; it is for {}", o.name, fmt::join(readers, ", ")));
  });
  if (o.sgd.nesterov && o.sgd.momentum == 0)
    rules.refuse("optimizer.sgd.nesterov", "which has no effect with optimizer.sgd.momentum 0");
  if (o.least_scale != OptimizerConfig().least_scale && !o.scales_parameters())
    rules.refuse("optimizer.least_scale", "which has no effect without optimizer.scale_parameter");
}

void check_precision(const Config& c, const BuildFeatures& build, Rules& rules) {
  const PrecisionConfig& p = c.precision;
  check_quantisation(c, rules);
  if (p.mode == PrecisionMode::tf32 && !build.cuda)
    rules.refuse("precision.mode", "which is arithmetic of NVIDIA GPUs, and this build has no CUDA back end; use fp32");
  check_master(c, rules);
  check_gradients(c, rules);
  check_moments(c, rules);
  if (p.loss_scale.min > p.loss_scale.initial)
    rules.refuse("precision.loss_scale.min",
                 fmt::format("expected at most loss_scale.initial ({})", p.loss_scale.initial));
}

}  // namespace mixtape
