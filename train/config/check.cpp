// Rules across keys, and what this version or build cannot do.
#include <algorithm>
#include <cmath>

#include "train/config/rules.h"

namespace mixtape {
namespace {

void check_heads(const ModelSpec& m, Rules& rules) {
  if (m.head_dim == 0 && m.d_model % m.n_heads != 0)
    rules.refuse("model.n_heads", fmt::format("expected a divisor of model.d_model ({}); change one of them, or give "
                                              "model.head_dim",
                                              m.d_model));
  if (m.n_heads % m.kv_heads() != 0)
    rules.refuse("model.n_kv_heads",
                 fmt::format("expected a divisor of model.n_heads ({}): each serves as many query heads", m.n_heads));
  if (m.head_width() > 256)
    rules.refuse("model.head_dim", "expected at most 256, the widest head that the attention kernels take");
  if (!m.window_layers.empty() && int64_t(m.window_layers.size()) != m.n_layers)
    rules.refuse("model.window_layers",
                 fmt::format("expected one number a layer (model.n_layers is {}), or []", m.n_layers));
}

void check_position(const ModelSpec& m, Rules& rules) {
  if (m.position != Position::rope) {
    if (m.rope_scaling.type != RopeScalingKind::none)
      rules.refuse("model.rope_scaling.type", fmt::format("which has no effect with model.position {}", m.position));
    return;
  }
  const double rotated = double(m.head_width()) * m.rope_fraction;
  if (rotated != std::trunc(rotated) || int64_t(rotated) % 2 != 0)
    rules.refuse("model.head_dim",
                 fmt::format("expected an even number of rotated dimensions with model.position rope: "
                             "head_dim * rope_fraction is {}",
                             rotated));
  const RopeScaling& s = m.rope_scaling;
  if (s.type == RopeScalingKind::none && s.factor != 1)
    rules.refuse("model.rope_scaling.factor", "which has no effect without model.rope_scaling.type");
  if (s.type == RopeScalingKind::llama3 && s.low_freq_factor >= s.high_freq_factor)
    rules.refuse("model.rope_scaling.low_freq_factor",
                 fmt::format("expected less than high_freq_factor ({})", s.high_freq_factor));
  if (s.type == RopeScalingKind::yarn && s.beta_slow >= s.beta_fast)
    rules.refuse("model.rope_scaling.beta_slow", fmt::format("expected less than beta_fast ({})", s.beta_fast));
}

void check_stacks(const ModelSpec& m, Rules& rules) {
  const bool two = m.family == Family::encoder_decoder;
  if (!two && m.n_decoder_layers != 0)
    rules.refuse("model.n_decoder_layers", fmt::format("which has no effect with model.family {}", m.family));
  if (two && (m.window != 0 || !m.window_layers.empty()))
    rules.refuse(m.window != 0 ? "model.window" : "model.window_layers",
                 "expected none with model.family encoder_decoder");
  if (m.position == Position::alibi && m.family != Family::decoder)
    rules.refuse("model.position",
                 fmt::format("expected another with model.family {}: ALiBi's slopes would favour what "
                             "comes after a token",
                             m.family));
  if (m.position != Position::relative_bias) return;
  // Half of a direction's buckets hold one distance each; only decoders have one direction.
  const int64_t unit = m.family == Family::decoder ? 2 : 4;
  const int64_t exact = m.relative_buckets / (m.family == Family::encoder ? 4 : 2);
  if (m.relative_buckets % unit != 0)
    rules.refuse("model.relative_buckets", fmt::format("expected a multiple of {}", unit));
  else if (m.relative_distance <= exact)
    rules.refuse("model.relative_distance",
                 fmt::format("expected more than {}, the distances that have a bucket each", exact));
}

// Probabilities are k / 256.
void check_dropout(const ModelSpec& m, Rules& rules) {
  const auto vanishes = [](double p) { return p > 0 && std::round(p * 256) == 0; };
  const auto drops_all = [](double p) { return std::round(p * 256) >= 256; };
  for (const auto& [key, p] : {std::pair{"model.dropout", m.dropout}, {"model.attention_dropout", m.attention_dropout}})
    if (vanishes(p) || drops_all(p))
      rules.refuse(key, "expected 0 or a probability from 1/256 to 255/256: it is rounded to k / 256");
}

// Both follow from the objective: a value of one's own can only contradict it.
void check_head(const Config& c, Rules& rules) {
  const ModelSpec& m = c.model;
  const bool labels = predicts_labels(c.objective.name);
  if (m.head != head_of(c.objective.name))
    rules.refuse("model.head", fmt::format("but objective.name is {}; leave it out", c.objective.name));
  else if (m.n_labels != (labels ? int64_t(c.objective.labels.size()) : 0))
    rules.refuse("model.n_labels", "but objective.labels says how many there are; leave it out");
}

void check_model_rules(const Config& c, Rules& rules) {
  const ModelSpec& m = c.model;
  check_heads(m, rules);
  check_position(m, rules);
  check_dropout(m, rules);
  if (m.pad_id >= m.vocab_size)
    rules.refuse("model.pad_id", fmt::format("expected a token below model.vocab_size ({})", m.vocab_size));
  if (m.qk_norm) rules.unavailable("model.qk_norm", "false");
  check_stacks(m, rules);
  check_head(c, rules);
}

void check_data(const Config& c, Rules& rules) {
  const DataConfig& d = c.data;
  if (d.tokenizer.empty()) rules.refuse("data.tokenizer", "expected bytes or a tokenizer's file");
  if (d.sources.empty())
    rules.refuse("data.sources",
                 "expected at least one source: - {path: DIR, weight: 1}, DIR from `mixtape data prepare`");
  bool validates = d.validation_split > 0;
  for (size_t i = 0; i < d.sources.size(); ++i) {
    const std::string key = fmt::format("data.sources[{}]", i);
    if (d.sources[i].path.empty()) rules.refuse(key + ".path", "expected the path of token shards");
    for (size_t j = 0; j < i; ++j)
      if (d.sources[j].name == d.sources[i].name)
        rules.refuse(key + ".name", fmt::format("expected a name of its own; data.sources[{}] has it too", j));
    if (d.sources[i].validation) validates = true;
  }
  for (size_t i = 0; i < d.stages.size(); ++i) {
    const std::string key = fmt::format("data.stages[{}]", i);
    const StageConfig& stage = d.stages[i];
    if (stage.from_tokens <= (i > 0 ? d.stages[i - 1].from_tokens : 0))
      rules.refuse(key + ".from_tokens", "expected each stage to begin after the one before, the first after 0");
    if (const int64_t end = c.total_tokens(); end > 0 && stage.from_tokens >= end)
      rules.refuse(key + ".from_tokens", fmt::format("but the run ends after {} tokens", end));
    const auto usable = [](double w) { return std::isfinite(w) && w >= 0; };
    if (stage.weights.size() != d.sources.size() || !std::ranges::all_of(stage.weights, usable) ||
        std::ranges::none_of(stage.weights, [](double w) { return w > 0; }))
      rules.refuse(
          key + ".weights",
          fmt::format("expected {} numbers from 0 up, one for each of data.sources, not all 0", d.sources.size()));
  }
  if (!d.sources.empty() && std::ranges::none_of(d.sources, [](const SourceConfig& s) { return s.weight > 0; }))
    rules.refuse("data.sources", "expected a weight above 0 of at least one source");
  if (c.eval.interval > 0 && !validates && !d.sources.empty())
    rules.refuse("eval.interval",
                 "but there is nothing to validate on; set data.validation_split, a source's validation, "
                 "or eval.interval=0");
  if (c.model.position == Position::learned && d.seq_length > c.model.max_positions)
    rules.refuse("data.seq_length",
                 fmt::format("expected at most model.max_positions ({}) with learned positions; lower "
                             "it or raise model.max_positions",
                             c.model.max_positions));
}

Family family_of(ObjectiveKind kind) {
  switch (kind) {
    case ObjectiveKind::masked_lm:
    case ObjectiveKind::classify:
    case ObjectiveKind::tag:
      return Family::encoder;
    case ObjectiveKind::span_corruption:
    case ObjectiveKind::denoising:
    case ObjectiveKind::seq2seq:
      return Family::encoder_decoder;
    default:
      return Family::decoder;
  }
}

// The objective that a key of `objective` belongs to; of labels, the first of two.
ObjectiveKind owner_of(std::string_view key) {
  using Kind = ObjectiveKind;
  static constexpr std::pair<std::string_view, Kind> owners[] = {{"labels", Kind::classify},
                                                                 {"masking", Kind::masked_lm},
                                                                 {"masking_unit", Kind::masked_lm},
                                                                 {"mask_rate", Kind::masked_lm},
                                                                 {"mask_token_share", Kind::masked_lm},
                                                                 {"random_token_share", Kind::masked_lm},
                                                                 {"max_predictions", Kind::masked_lm},
                                                                 {"noise_density", Kind::span_corruption},
                                                                 {"mean_span_length", Kind::span_corruption}};
  for (const auto& [name, kind] : owners)
    if (name == key) return kind;
  return Kind::denoising;
}

// A key that differs from its default and is not read.
void refuse_idle_keys(const Config& c, Rules& rules) {
  each_changed(c, "objective", [&](const std::string& key, std::string_view name) {
    if (name == "name" || name == "label_smoothing") return;  // of any objective
    if (name == "labels" && predicts_labels(c.objective.name)) return;
    if (owner_of(name) != c.objective.name)
      rules.refuse(key, fmt::format("which has no effect with objective.name {}; it is for {}", c.objective.name,
                                    owner_of(name)));
  });
}

void check_labels(const ObjectiveConfig& o, Rules& rules) {
  if (!predicts_labels(o.name)) return;
  if (o.labels.empty())
    rules.refuse("objective.labels", "expected the names of the labels in the data, such as [negative, positive]");
  for (size_t i = 0; i < o.labels.size(); ++i)
    if (o.labels[i].empty() ||
        std::find(o.labels.begin(), o.labels.begin() + long(i), o.labels[i]) != o.labels.begin() + long(i))
      rules.refuse("objective.labels", fmt::format("expected each label once; '{}' is one too many", o.labels[i]));
}

// What only streams of text, or only examples, have.
void check_kind_of_data(const Config& c, Rules& rules) {
  const DataConfig& d = c.data;
  if (!d.decoder_seq_length.is_auto() && c.objective.name != ObjectiveKind::seq2seq)
    rules.refuse("data.decoder_seq_length",
                 fmt::format("which has no effect with objective.name {}", c.objective.name));
  if (!is_fine_tuning(c.objective.name)) return;
  constexpr int64_t least = 8;  // a template takes up to four tokens
  if (d.seq_length < least) rules.refuse("data.seq_length", fmt::format("expected at least {} of examples", least));
  if (d.decoder_seq_length.value_or(least) < least)
    rules.refuse("data.decoder_seq_length", fmt::format("expected at least {} of examples", least));
  if (!d.document_mask.value_or(true))
    rules.refuse("data.document_mask", "but examples never see each other; leave it auto");
  if (!d.stages.empty()) rules.refuse("data.stages", "but examples are mixed by the same weights all the time");
  for (size_t i = 0; i < d.sources.size(); ++i)
    if (d.sources[i].format != "auto")
      rules.refuse(fmt::format("data.sources[{}].format", i), "but examples are read from .jsonl files; leave it auto");
  const int64_t longest = d.decoder_seq_length.value_or(d.seq_length);
  if (c.objective.name == ObjectiveKind::seq2seq && c.model.position == Position::learned &&
      longest > c.model.max_positions)
    rules.refuse("data.decoder_seq_length", fmt::format("expected at most model.max_positions ({}) with learned "
                                                        "positions",
                                                        c.model.max_positions));
}

void check_objective_rules(const Config& c, Rules& rules) {
  const ObjectiveConfig& o = c.objective;
  check_labels(o, rules);
  check_kind_of_data(c, rules);
  if (family_of(o.name) != c.model.family)
    rules.refuse("objective.name", fmt::format("which is for model.family {}, but that is {}; change one of them",
                                               family_of(o.name), c.model.family));
  refuse_idle_keys(c, rules);
  if (o.mask_token_share + o.random_token_share > 1)
    rules.refuse("objective.random_token_share",
                 fmt::format("expected at most 1 - mask_token_share ({})", o.mask_token_share));
  if (o.masking == MaskingRule::bernoulli && o.masking_unit == MaskingUnit::span)
    rules.refuse("objective.masking_unit",
                 "but objective.masking bernoulli has no number of tokens for spans to reach; use roberta or bert");
  if (o.max_predictions && o.masking != MaskingRule::bert)
    rules.refuse("objective.max_predictions", fmt::format("which has no effect with objective.masking {}", o.masking));
  if (o.name == ObjectiveKind::span_corruption && c.data.document_mask.value_or(false))
    rules.refuse("data.document_mask",
                 "but spans run across documents with objective.name span_corruption; leave it auto");
}

void check_length(const Config& c, Rules& rules) {
  const TrainConfig& t = c.train;
  if (t.global_batch_size % t.micro_batch_size != 0)
    rules.refuse("train.global_batch_size",
                 fmt::format("expected a multiple of train.micro_batch_size ({})", t.micro_batch_size));
  const BatchRampConfig& ramp = t.batch_ramp;
  if (!ramp.start.is_auto() && ramp.tokens == 0)
    rules.refuse("train.batch_ramp.start", "which has no effect without train.batch_ramp.tokens");
  if (const int64_t start = ramp.start.value_or(t.micro_batch_size);
      start % t.micro_batch_size != 0 || start > t.global_batch_size)
    rules.refuse("train.batch_ramp.start",
                 fmt::format("expected a multiple of train.micro_batch_size ({}) up to train.global_batch_size ({})",
                             t.micro_batch_size, t.global_batch_size));
  if (t.max_steps && t.max_tokens)
    rules.refuse("train.max_tokens", fmt::format("but train.max_steps ({}) is given too; keep one, or set the other to "
                                                 "null",
                                                 *t.max_steps));
  if (!t.max_steps && !t.max_tokens)
    rules.refuse("train.max_steps", "expected the length of the run here or in train.max_tokens");
  const int64_t total = c.total_steps();
  if (total > 0 && t.stop_at_step && *t.stop_at_step > total)
    rules.refuse("train.stop_at_step", fmt::format("expected at most the length of the run, {} steps", total));
}

void check_schedule(const Config& c, Rules& rules) {
  const ScheduleConfig& s = c.schedule;
  const int64_t total = c.total_steps();
  if (s.min_lr > c.optimizer.lr)
    rules.refuse("schedule.min_lr", fmt::format("expected at most optimizer.lr ({})", c.optimizer.lr));
  if (total > 0 && s.warmup_steps > total)
    rules.refuse("schedule.warmup_steps", fmt::format("expected at most the length of the run, {} steps", total));
  if (s.name == ScheduleKind::inverse_sqrt && s.warmup_steps == 0)
    rules.refuse("schedule.warmup_steps",
                 "expected at least 1 with schedule.name inverse_sqrt: lr * sqrt(warmup / step)");
  if (s.warmup_shape == WarmupShape::constant && s.warmup_steps == 0)
    rules.refuse("schedule.warmup_shape", "which has no effect with schedule.warmup_steps 0");
  if (!s.decay_steps) return;
  const bool to_an_end = s.name == ScheduleKind::linear || s.name == ScheduleKind::cosine;
  if (to_an_end && *s.decay_steps <= s.warmup_steps)
    rules.refuse("schedule.decay_steps",
                 fmt::format("expected more than schedule.warmup_steps ({}): the decay ends there", s.warmup_steps));
  if (s.name == ScheduleKind::wsd && total > 0 && *s.decay_steps > total - s.warmup_steps)
    rules.refuse("schedule.decay_steps",
                 fmt::format("expected at most the {} steps after the warm-up", total - s.warmup_steps));
}

void check_run(const Config& c, Rules& rules) {
  const std::string& name = c.run.name;
  if (name.empty() || name[0] == '.' || name.find('/') != name.npos)
    rules.refuse("run.name", "expected a directory's name without '/' that does not begin with '.'");
  if (c.run.dir.empty()) rules.refuse("run.dir", "expected a directory; . is the current one");
  if (c.run.resume.empty()) rules.refuse("run.resume", "expected auto, never or a checkpoint's path");
  if (c.run.init_from && c.run.resume != "auto" && c.run.resume != "never")
    rules.refuse("run.init_from", "but run.resume names a checkpoint; a run starts from one of them");
}

// What cuDNN's attention has in common with Mixtape's.
void check_cudnn(const Config& c, Rules& rules) {
  const ModelSpec& m = c.model;
  const auto refuse = [&](std::string_view because) {
    rules.refuse("attention.implementation", fmt::format("but {}; use native", because));
  };
  if (c.device == "cpu") refuse("device is cpu");
  if (c.precision.mode == PrecisionMode::fp32 || c.precision.mode == PrecisionMode::tf32)
    refuse(fmt::format("precision.mode is {}, and cuDNN's attention is in bf16 or fp16", c.precision.mode));
  if (m.position == Position::alibi || m.position == Position::relative_bias)
    refuse(fmt::format("cuDNN does not have the bias of model.position {}", m.position));
  if (m.window != 0 || !m.window_layers.empty()) refuse("model.window is Mixtape's own");
  if (m.attention_dropout > 0) refuse("model.attention_dropout drops by Mixtape's random numbers");
  if (m.head_width() % 8 != 0 || m.head_width() > 128)
    refuse(fmt::format("heads are {} wide, and cuDNN takes multiples of 8 up to 128", m.head_width()));
  const bool masks = c.data.document_mask.value_or(c.objective.name != ObjectiveKind::span_corruption);
  if (masks && c.data.pack)
    refuse("rows hold several documents that do not see each other (set data.document_mask=false or data.pack=false)");
}

void check_device(const Config& c, const BuildFeatures& build, Rules& rules) {
  const std::string& d = c.device;
  const bool numbered =
      d.starts_with("cuda:") && d.size() > 5 && d.size() < 9 && d.find_first_not_of("0123456789", 5) == d.npos;
  const std::string no_cuda = "but this build has no CUDA back end; use cpu or auto, or build with -DMIXTAPE_CUDA=ON";
  if (d != "auto" && d != "cpu" && d != "cuda" && !numbered)
    rules.refuse("device", "expected auto, cpu, cuda or cuda:N");
  else if (d.starts_with("cuda") && !build.cuda)
    rules.refuse("device", no_cuda);
  if (c.attention.implementation == AttentionImplementation::cudnn) {
    if (!build.cuda)
      rules.refuse("attention.implementation", no_cuda);
    else
      check_cudnn(c, rules);
  }
  if (c.runtime.cuda_graphs.value_or(false) && !build.cuda) rules.refuse("runtime.cuda_graphs", no_cuda);
}

void check_lora(const Config& c, Rules& rules) {
  const LoraConfig &l = c.lora, off;
  if (l.rank > 0) {
    if (l.targets.empty()) rules.refuse("lora.targets", "expected patterns of layers, such as ['*attention.*']");
    if (!c.parameters.freeze.empty())
      rules.refuse("parameters.freeze", "which has no effect with lora.rank: all but the adapters is frozen");
    return;
  }
  for (const auto& [key, given] : {std::pair{"lora.alpha", l.alpha != off.alpha},
                                   {"lora.dropout", l.dropout != 0},
                                   {"lora.targets", l.targets != off.targets}})
    if (given) rules.refuse(key, "which has no effect without lora.rank");
}

// What the optimizer keeps of each weight must be something.
void check_offloaded_state(const Config& c, Rules& rules) {
  const OptimizerConfig& o = c.optimizer;
  const PrecisionMode mode = c.precision.mode;
  const bool masters =
      mode != PrecisionMode::fp32 && mode != PrecisionMode::tf32 && c.precision.master != MasterWeights::none;
  const bool first_moments = o.name == OptimizerKind::sgd         ? o.sgd.momentum > 0
                             : o.name == OptimizerKind::adafactor ? o.adafactor.beta1 > 0
                                                                  : true;
  if (!masters && !first_moments)
    rules.refuse("memory.offload",
                 fmt::format("which has no effect{}: optimizer.name {} keeps nothing of each weight here, "
                             "and there are no master weights{}",
                             c.memory.offloads_activations() ? " on the optimizer's state" : "", o.name,
                             c.memory.offloads_activations() ? "; use activations" : ""));
}

void check_offload(const Config& c, Rules& rules) {
  if (c.memory.offload == OffloadMode::none) {
    if (c.memory.offload_directory)
      rules.refuse("memory.offload_directory", "which has no effect without memory.offload");
    return;
  }
  if (c.memory.offloads_state()) check_offloaded_state(c, rules);
  const int64_t layers = c.model.n_layers + (c.model.family == Family::encoder_decoder ? c.model.decoder_layers() : 0);
  if (c.memory.offloads_activations() && layers < 3)
    rules.refuse("memory.offload", fmt::format("which has no effect on activations: backward begins with those of the "
                                               "last two layers, and the model has {}; use {}",
                                               layers, c.memory.offloads_state() ? "optimizer" : "none"));
  if (c.runtime.cuda_graphs.value_or(false))
    rules.refuse("runtime.cuda_graphs",
                 "expected auto or false with memory.offload, whose copies are no part of a graph");
}

// Update rules that look at a tensor as a whole need it whole.
void check_sharding(const Config& c, Rules& rules) {
  if (c.parallel.zero_stage == 0) return;
  const auto refuse = [&](std::string_view key) {
    rules.refuse("parallel.zero_stage", fmt::format("but {} looks at whole tensors, which shards cut; use 0", key));
  };
  if (c.optimizer.name == OptimizerKind::adafactor || c.optimizer.name == OptimizerKind::muon)
    return refuse(fmt::format("optimizer.name {}", c.optimizer.name));
  if (c.optimizer.scales_parameters()) refuse("optimizer.scale_parameter");
}

// What ranks share out of each layer must have a part for each, and what looks at more than elements needs it whole.
void check_tensor_parallel(const Config& c, Rules& rules) {
  const int64_t size = c.parallel.tensor_parallel_size;
  if (size == 1) return;
  const auto refuse = [&](const std::string& expected) { rules.refuse("parallel.tensor_parallel_size", expected); };
  const ModelSpec& m = c.model;
  const int64_t fewer = m.kv_heads() < m.n_heads ? m.kv_heads() : 0;  // keys and values
  for (const auto& [key, n] :
       {std::pair{"model.n_heads", m.n_heads}, {"model.n_kv_heads", fewer}, {"model.d_ff", m.ff_width()}})
    if (n % size) refuse(fmt::format("expected a divisor of {} ({}), which ranks share out", key, n));
  if (m.vocab_size < size) refuse(fmt::format("expected at most model.vocab_size ({})", m.vocab_size));
  if (c.lora.rank > 0) refuse("but lora.rank adds matrices that are not cut; use 1");
  using enum OptimizerKind;
  const OptimizerKind rule = c.optimizer.name;
  if (rule != adamw && rule != adam && rule != lion && rule != sgd)
    refuse(fmt::format("but optimizer.name {} looks at whole tensors; use adamw, adam, lion or sgd", rule));
  else if (c.optimizer.scales_parameters())
    refuse("but optimizer.scale_parameter looks at whole tensors; use 1");
  if (c.precision.gradients == GradientStorage::fused)
    refuse("but precision.gradients is fused: buckets would be clipped by the norm of a rank's part alone; use fp32");
  if (c.precision.mode == PrecisionMode::fp8 || c.precision.mode == PrecisionMode::int8_qat)
    refuse(fmt::format("but precision.mode {} has scales of whole tensors and rows; use bf16", c.precision.mode));
  if (c.precision.moments == MomentFormat::int8 || c.precision.moments == MomentFormat::fp8)
    refuse(fmt::format("but precision.moments {} has a scale for 256 neighbours in a whole tensor; use fp32 or bf16",
                       c.precision.moments));
}

}  // namespace

void check_ranks(const Config& config, int ranks, const Origins& origins) {
  Rules rules(config, origins);
  const int64_t sharing = config.parallel.tensor_parallel_size;
  if (ranks % sharing != 0) {
    rules.refuse("parallel.tensor_parallel_size",
                 fmt::format("expected a divisor of the number of processes ({}); start as many as that, or a multiple "
                             "of it",
                             ranks));
    return rules.finish();
  }
  const int64_t groups = ranks / sharing, unit = config.train.micro_batch_size * groups;
  if (config.train.global_batch_size % unit != 0)
    rules.refuse(
        "train.global_batch_size",
        fmt::format("expected a multiple of {}: train.micro_batch_size ({}) times the number of processes ({}{})", unit,
                    config.train.micro_batch_size, ranks,
                    sharing == 1 ? "" : fmt::format(" / parallel.tensor_parallel_size {}", sharing)));
  if (ranks > 1 && config.precision.gradients != GradientStorage::fp32)
    rules.refuse("precision.gradients", "expected fp32 with several processes, which exchange gradients in fp32");
  if (ranks > 1 && config.runtime.cuda_graphs.value_or(false))
    rules.refuse("runtime.cuda_graphs",
                 "expected auto or false with several processes: exchanges are no part of a graph");
  if (config.determinism == Determinism::strict && 8 % groups != 0)
    rules.refuse("determinism",
                 fmt::format("expected 1, 2, 4 or 8 processes with it{}, not {}; start as many, or use fast",
                             sharing == 1 ? "" : " that have other data", groups));
  rules.finish();
}

void check_model(const Config& config, const Origins& origins) {
  Rules rules(config, origins);
  check_model_rules(config, rules);
  rules.finish();
}

void check_objective(const Config& config, const Origins& origins) {
  Rules rules(config, origins);
  check_data(config, rules);
  check_objective_rules(config, rules);
  rules.finish();
}

void check(const Config& config, const Origins& origins, const BuildFeatures& build) {
  Rules rules(config, origins);
  check_run(config, rules);
  check_device(config, build, rules);
  check_model_rules(config, rules);
  check_data(config, rules);
  check_objective_rules(config, rules);
  check_length(config, rules);
  check_optimizer(config, rules);
  check_schedule(config, rules);
  check_precision(config, build, rules);
  check_lora(config, rules);
  check_sharding(config, rules);
  check_tensor_parallel(config, rules);
  check_offload(config, rules);
  rules.finish();
}

}  // namespace mixtape
