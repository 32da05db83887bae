#include "train/optim/optimizer.h"

#include <algorithm>

#include "core/ops/cast.h"
#include "train/optim/muon.h"
#include "train/optim/parameter_groups.h"

namespace mixtape {

Moments moments_of(const Config& config) {
  const OptimizerConfig& o = config.optimizer;
  const MomentFormat format = config.precision.moments;
  switch (o.name) {
    case OptimizerKind::adafactor:
      return {.first = o.adafactor.beta1 > 0, .second = SecondMoments::factored};
    case OptimizerKind::sgd:
      return {.first = o.sgd.momentum > 0, .format = format};
    case OptimizerKind::lion:
      return {.first = true, .format = format};
    case OptimizerKind::muon:
      return {.first = true, .second = SecondMoments::without_hidden, .format = format};
    default:
      return {.first = true, .second = SecondMoments::full, .format = format};
  }
}

Optimizer::Optimizer(const Config& config, Parameters& parameters, Backend& backend, Exchange* layers)
    : config_(config.optimizer),
      clip_(float(config.train.clip_grad)),
      seed_(uint64_t(config.seed)),
      parameters_(parameters),
      backend_(backend),
      layers_(layers) {
  const std::vector<ParameterFactors> factors = parameter_factors(parameters.layout(), config.parameters);
  const auto decay = float(config_.weight_decay);
  all_ = {.place = {{0, parameters.layout().learning_flat_count()}},
          .tensors = parameters.update_tensors(decay, factors)};
  // Ranges of tensors that are stored as one are apart only where their scales are.
  const bool scaled = config_.scales_parameters();
  all_.ranges = scaled ? Parameters::ranges_of(all_.tensors) : parameters.update_ranges(decay, factors);
  if (config_.name == OptimizerKind::muon)
    for (UpdateRange& range : all_.ranges) {
      const ParameterEntry& entry = parameters.layout()[int(range.parameter)];
      range.v_shift = entry.offset - entry.second_offset;
    }
  for (const Shards::Part& part : parameters.shards().own()) own_.push_back(part_of(all_, part));
  if (parameters.storage().gradient_memory.transient && !parameters.storage().sums)
    for (const GradientBucket& b : parameters.buckets().all()) buckets_.push_back(part_of(all_, {b.run, b.run.begin}));
  for (int64_t r = 0; layers && r < layers->size(); ++r)
    of_layers_.push_back({.offset = r * chunk_elements, .count = 1});
  if (parameters.offloaded_bytes() > 0) cut_into_pieces();
  if (scaled) scales_ = backend.make({int64_t(all_.tensors.size())}, DType::f32, Category::optimizer);
}

namespace {

// A 16th of what learns, at most 16 chunks: as much as keeps a disk busy, little beside a model.
int64_t piece_elements(const ParameterLayout& layout) {
  return std::clamp<int64_t>(layout.learning_flat_count() / 16 / chunk_elements, 1, 16) * chunk_elements;
}

// A run in pieces that end with a chunk, as ranges do.
std::vector<Run> pieces_of_run(const Run& run, int64_t elements) {
  std::vector<Run> pieces;
  for (int64_t at = run.begin; at < run.end();) {
    const int64_t stop = std::min(run.end(), (at / elements + 1) * elements);
    pieces.push_back({at, stop - at});
    at = stop;
  }
  return pieces;
}

// Runs of whole parameters: the buckets that gradients are usually sent in, as far as they are of this run.
std::vector<Run> whole_tensors_of_run(const Run& run, const ParameterLayout& layout) {
  std::vector<Run> pieces;
  for (const GradientBucket& b : gradient_buckets(layout, usual_bucket_elements(layout)))
    if (b.run.begin >= run.begin && b.run.end() <= run.end()) pieces.push_back(b.run);
  return pieces;
}

}  // namespace

// Rules that treat each element alone take any run of chunks, the others whole tensors.
void Optimizer::cut_into_pieces() {
  const bool whole = config_.looks_at_tensors();
  const ParameterLayout& layout = parameters_.layout();
  std::vector<Run> places;
  for (std::vector<Part>* parts : {&own_, &buckets_})
    for (Part& part : *parts) {
      if (!buckets_.empty() && parts == &own_) continue;  // which are measured and updated as buckets
      const Run& run = part.place.run;
      for (const Run& piece : whole ? whole_tensors_of_run(run, layout) : pieces_of_run(run, piece_elements(layout))) {
        Part& made = part.pieces.emplace_back(part_of(all_, {piece, part.place.at + piece.begin - run.begin}));
        made.number = int(places.size());
        places.push_back(made.place.place());
      }
    }
  stage_ = std::make_unique<StateStage>(parameters_, backend_, std::move(places));
}

Optimizer::Part Optimizer::part_of(const Part& all, Shards::Part place) const {
  const Run& run = place.run;
  // Of a list in the order of offsets the first that is not before `offset`.
  const auto first_from = [](const auto& list, int64_t offset) {
    return std::ranges::partition_point(list, [&](const auto& t) { return t.offset < offset; }) - list.begin();
  };
  Part part{.place = place};
  part.first_tensor = first_from(all.tensors, run.begin);
  part.first_range = first_from(all.ranges, run.begin);
  const int64_t end_tensor = first_from(all.tensors, run.end()), end_range = first_from(all.ranges, run.end());
  for (int64_t i = part.first_tensor; i < end_tensor; ++i) {
    UpdateTensor tensor = all.tensors[size_t(i)];
    tensor.offset -= run.begin;
    part.tensors.push_back(tensor);
  }
  for (int64_t i = part.first_range; i < end_range; ++i) {
    UpdateRange range = all.ranges[size_t(i)];
    range.offset -= run.begin;
    if (config_.name == OptimizerKind::muon) {
      range.v_shift -= run.begin;
      if (!parameters_.layout()[int(range.parameter)].is_hidden_matrix()) part.beside_muon.push_back(range);
    }
    if (config_.scales_parameters()) range.tensor -= int32_t(part.first_tensor);
    part.ranges.push_back(range);
  }
  part.counted = counted(part.ranges);
  return part;
}

void Optimizer::measure_gradients(StepState* state, const std::function<void(const Tensor& squares)>& share) const {
  const bool parts = parameters_.shards().sharding().ranks > 1;
  if (!parts && !layers_) return measure(all_, parameters_.gradients, false, state);
  const Tensor squares = squares_of_own();
  if (parts) share(squares);
  measure(squares, all_.ranges, state);
  if (layers_) join_norms(state);
}

// Of ranks that share out layers each counts what it alone has; what all have the first one counts.
std::vector<UpdateRange> Optimizer::counted(std::vector<UpdateRange> ranges) const {
  if (!layers_ || layers_->rank() == 0) return ranges;
  for (UpdateRange& range : ranges)
    if (parameters_.layout()[int(range.parameter)].cut == Cut::none) range.count = 0;
  return ranges;
}

// From the sum that each of the ranks has made, in their order.
void Optimizer::join_norms(StepState* state) const {
  const Tensor sums = backend_.workspace({int64_t(of_layers_.size())}, DType::i64);
  if (!backend_.planning()) {
    const Tensor own(reinterpret_cast<std::byte*>(&state->grad_squares), {1}, DType::i64);
    backend_.zero(sums);
    backend_.copy(sums.columns(layers_->rank(), 1), own);
    layers_->wait(layers_->all_reduce(sums));
  }
  measure(sums, of_layers_, state);
}

void Optimizer::measure(const Tensor& squares, const std::vector<UpdateRange>& ranges, StepState* state) const {
  gradient_norm(
      backend_,
      {.state = state, .ranges = ranges.data(), .n_ranges = int64_t(ranges.size()), .clip = clip_, .squares = squares});
}

// Of all ranges; 0 of those that are not this rank's.
Tensor Optimizer::squares_of_own() const {
  const Tensor squares = backend_.workspace({int64_t(all_.ranges.size())}, DType::i64);
  if (!backend_.planning()) backend_.zero(squares);
  for (const Part& part : own_)
    range_squares(backend_, {.squares = squares.columns(part.first_range, int64_t(part.ranges.size())),
                             .gradients = parameters_.own_gradients(part.place),
                             .ranges = part.counted.data(),
                             .n_ranges = int64_t(part.counted.size())});
  return squares;
}

void Optimizer::update(StepState* state) const {
  for (const Part& part : own_) update(part, parameters_.own_gradients(part.place), state);
}

void Optimizer::measure_bucket(int bucket, StepState* state) const {
  measure(buckets_[size_t(bucket)], parameters_.buckets().gradients(bucket), true, state);
}

void Optimizer::apply_bucket(int bucket, StepState* state) const {
  measure_bucket(bucket, state);
  update(buckets_[size_t(bucket)], parameters_.buckets().gradients(bucket), state);
}

void Optimizer::measure(const Part& part, const Tensor& gradients, bool adds, StepState* state) const {
  gradient_norm(backend_, {.state = state,
                           .gradients = gradients,
                           .ranges = part.ranges.data(),
                           .n_ranges = int64_t(part.ranges.size()),
                           .clip = clip_,
                           .adds = adds});
}

// Gradients of 16 bits for a rule that reads fp32: a copy of the part.
Tensor Optimizer::readable(const Tensor& gradients) const {
  if (gradients.dtype() == DType::f32 || config_.name != OptimizerKind::adafactor) return gradients;
  const Tensor wide = backend_.workspace({gradients.count()}, DType::f32);
  backend_.cast().convert({.y = {wide, Write::overwrite}, .x = gradients});
  return wide;
}

Tensor Optimizer::measured_scales(const Buffers& b) const {
  if (!scales_) return {};
  const auto n = int64_t(b.part.tensors.size());
  const Tensor scales = scales_.columns(b.part.first_tensor, n);
  parameter_scales(backend_, {.scales = scales,
                              .weights = b.master ? b.master : b.weights,
                              .tensors = b.part.tensors.data(),
                              .n_tensors = n,
                              .least = float(config_.least_scale)});
  return scales;
}

void Optimizer::update(const Part& part, const Tensor& gradients, StepState* state) const {
  if (!stage_) return update(part, gradients, parameters_.held_state(part.place.place()), state);
  for (const Part& piece : part.pieces) {
    const Run place{piece.place.run.begin - part.place.run.begin, piece.place.run.count};
    update(piece, Parameters::part(gradients, place), stage_->take(piece.number), state);
    stage_->give_back();
  }
}

void Optimizer::update(const Part& part, const Tensor& gradients, const UpdateState& kept, StepState* state) const {
  Buffers b{.part = part,
            .state = state,
            .weights = parameters_.own_weights(part.place),
            .master = kept.master,
            .gradients = readable(gradients),
            .m = kept.m,
            .v = kept.v};
  b.scales = measured_scales(b);
  switch (config_.name) {
    case OptimizerKind::adafactor:
      return adafactor_update(b);
    case OptimizerKind::sgd:
      return sgd_update(b);
    case OptimizerKind::lion:
      return lion_update(b);
    case OptimizerKind::muon:
      return muon_update(b);
    default:
      return adamw_update(b, part.ranges);
  }
}

void Optimizer::muon_update(const Buffers& b) const {
  const auto of = [](const Tensor& flat, const UpdateTensor& t) {
    return flat ? Parameters::part(flat, {t.offset, t.count()}) : flat;
  };
  for (const UpdateTensor& t : b.part.tensors)
    if (parameters_.layout()[int(t.parameter)].is_hidden_matrix())
      muon(backend_, config_.muon,
           {.state = b.state,
            .weights = of(b.weights, t),
            .master = of(b.master, t),
            .gradients = of(b.gradients, t),
            .m = of(b.m.values, t),
            .tensor = t,
            .seed = seed_});
  adamw_update(b, b.part.beside_muon);
}

void Optimizer::adamw_update(const Buffers& b, const std::vector<UpdateRange>& ranges) const {
  adamw(backend_, {.state = b.state,
                   .weights = b.weights,
                   .master = b.master,
                   .gradients = b.gradients,
                   .m = b.m,
                   .v = b.v,
                   .ranges = ranges.data(),
                   .n_ranges = int64_t(ranges.size()),
                   .beta1 = float(config_.betas[0]),
                   .beta2 = float(config_.betas[1]),
                   .eps = float(config_.eps),
                   .bias_correction = config_.bias_correction,
                   .scales = b.scales,
                   .seed = seed_,
                   .decoupled_decay = config_.name != OptimizerKind::adam});
}

void Optimizer::sgd_update(const Buffers& b) const {
  sgd(backend_, {.state = b.state,
                 .weights = b.weights,
                 .master = b.master,
                 .gradients = b.gradients,
                 .m = b.m,
                 .ranges = b.part.ranges.data(),
                 .n_ranges = int64_t(b.part.ranges.size()),
                 .momentum = float(config_.sgd.momentum),
                 .nesterov = config_.sgd.nesterov,
                 .seed = seed_});
}

void Optimizer::lion_update(const Buffers& b) const {
  lion(backend_, {.state = b.state,
                  .weights = b.weights,
                  .master = b.master,
                  .gradients = b.gradients,
                  .m = b.m,
                  .ranges = b.part.ranges.data(),
                  .n_ranges = int64_t(b.part.ranges.size()),
                  .beta1 = float(config_.betas[0]),
                  .beta2 = float(config_.betas[1]),
                  .seed = seed_});
}

void Optimizer::adafactor_update(const Buffers& b) const {
  adafactor(backend_, {.state = b.state,
                       .weights = b.weights,
                       .master = b.master,
                       .gradients = b.gradients,
                       .m = b.m.values,
                       .v = b.v.values,
                       .tensors = b.part.tensors.data(),
                       .n_tensors = int64_t(b.part.tensors.size()),
                       .beta1 = float(config_.adafactor.beta1),
                       .decay_rate = float(config_.adafactor.decay_rate),
                       .eps = float(config_.adafactor.eps),
                       .clip_threshold = float(config_.adafactor.clip_threshold),
                       .scales = b.scales});
}

}  // namespace mixtape
