#include "train/parallel/gradient_reducer.h"

#include <algorithm>
#include <bit>

#include "core/ops/cast.h"
#include "train/parallel/watchdog.h"

namespace mixtape {
namespace {

// The numbers of micro-batches that steps of this run have.
std::vector<int64_t> micro_batch_counts(const Config& config) {
  const int64_t most = config.train.global_batch_size / config.train.micro_batch_size;
  if (config.train.batch_ramp.tokens == 0) return {most};
  std::vector<int64_t> counts;  // beyond two in each lane nothing new is needed
  for (int64_t n = 1; n <= std::min<int64_t>(most, 2 * LaneFold::lanes); ++n) counts.push_back(n);
  return counts;
}

std::vector<int64_t> bytes_of(const std::vector<int64_t>& counts, int64_t size) {
  std::vector<int64_t> bytes;
  for (const int64_t count : counts) bytes.push_back(count * size);
  return bytes;
}

std::span<std::byte> memory_of(const Tensor& t) { return {t.raw(), size_t(t.bytes())}; }
std::span<float> floats_of(const Tensor& t) { return {t.data<float>(), size_t(t.count())}; }

}  // namespace

Sharding sharding_of(const Config& config, const Communicator& ranks) {
  if (config.parallel.zero_stage == 0) return {};
  return {.rank = ranks.rank(), .ranks = ranks.size()};
}

bool sums_each_micro_batch(const Config& config, const Communicator& ranks) {
  return config.parallel.zero_stage >= 2 && ranks.size() > 1;
}

GradientReducer::GradientReducer(const Config& config, Parameters& parameters, Backend& backend, Communicator& ranks,
                                 Exchange* device)
    : parameters_(parameters),
      backend_(backend),
      ranks_(ranks),
      device_(device),
      host_(host_exchange(ranks)),
      on_gpu_(backend.name() != "cpu"),
      stage_(int(config.parallel.zero_stage)),
      sums_each_(sums_each_micro_batch(config, ranks)),
      shards_(parameters.buckets().all(), parameters.layout().learning_flat_count(), {ranks.rank(), ranks.size()}),
      ready_(size_t(parameters.buckets().size())) {
  if (ranks.size() > 1) parameters.buckets().set_listener(this);
  // Gradients that are fused into the update are of one micro-batch, whose order is its own.
  if (config.determinism != Determinism::strict || config.precision.gradients == GradientStorage::fused) return;
  // Of stages 2 and 3 each rank adds up all micro-batches, of the elements that are its own.
  const Sharding lanes = sums_each_ ? Sharding{} : Sharding{ranks.rank(), ranks.size()};
  lanes_.emplace(lanes.rank, lanes.ranks);
  const auto needed = LaneFold::needed(lanes.rank, lanes.ranks, micro_batch_counts(config));
  const int64_t elements = sums_each_ ? shards_.own_count() : parameters.layout().learning_flat_count();
  const DType type = sums_each_ ? DType::f32 : parameters.storage().gradient_memory.dtype;
  for (size_t p = 0; p < needed.size(); ++p)
    if (needed[p]) kept_[p] = backend.make({elements}, type, Category::gradients);
}

GradientReducer::~GradientReducer() {
  if (ranks_.size() > 1) parameters_.buckets().set_listener(nullptr);
}

StepCounts GradientReducer::begin(const GlobalBatch& batch) {
  const auto own = int64_t(batch.micro_batches.size());
  micro_batches_ = batch.of_micro_batches > 0 ? batch.of_micro_batches : own;
  first_ = int64_t(batch.first_micro_batch);
  stride_ = batch.stride;
  here_ = sums_each_ ? (micro_batches_ + ranks_.size() - 1) / ranks_.size() : own;
  next_bucket_ = 0;
  if (lanes_)
    sums_each_ ? lanes_->begin(micro_batches_, 0, micro_batches_) : lanes_->begin(micro_batches_, first_, own);
  int64_t counts[] = {batch.n_tokens, batch.n_targets};
  if (!backend_.planning()) {
    const Phase phase("exchange of target counts", Phase::waits);
    ranks_.all_reduce(std::span(counts));
  }
  return {.tokens = counts[0], .targets = counts[1]};
}

void GradientReducer::bucket_complete(int bucket) {
  if (now_ < 0 || (!sums_each_ && now_ + 1 < here_)) return;
  const Tensor gradients = parameters_.buckets().gradients(bucket);
  if (lanes_ && !sums_each_) apply_moves(gradients, parameters_.buckets()[bucket].run);
  ready_[size_t(bucket)] = gradients;
  while (next_bucket_ < int(ready_.size()) && ready_[size_t(next_bucket_)]) {
    exchange(next_bucket_, ready_[size_t(next_bucket_)]);
    ready_[size_t(next_bucket_++)] = {};
  }
}

void GradientReducer::end_micro_batch(int64_t i) {
  const bool in_buckets = ranks_.size() > 1 && (sums_each_ || i + 1 == here_);
  if (in_buckets) next_bucket_ = 0;
  if (!in_buckets && lanes_) apply_moves(parameters_.gradients, {0, parameters_.gradients.count()});
  now_ = -1;
}

// The moves of this rank's current micro-batch, on elements `run` of its gradients.
void GradientReducer::apply_moves(const Tensor& gradients, Run run) {
  for (const LaneFold::Move& move : lanes_->moves(now_)) {
    const Tensor place = Parameters::part(kept_[size_t(move.place)], run);
    const bool keeps = move.kind == LaneFold::Move::keep, adds = move.kind == LaneFold::Move::add;
    backend_.cast().convert({.y = {keeps ? place : gradients, adds ? Write::accumulate : Write::overwrite},
                             .x = keeps ? gradients : place});
  }
}

void GradientReducer::exchange(int bucket, const Tensor& gradients) {
  collect();
  const int64_t own = shards_.of_bucket(bucket, ranks_.rank()).run.count;
  const int64_t arrives = lanes_ ? own * ranks_.size() : stage_ > 0 && !on_gpu_ ? own : 0;
  on_its_way_ = {bucket, now_, gradients, {}};
  if (arrives > 0) on_its_way_.scratch = backend_.workspace({arrives}, DType::f32);
  if (backend_.planning()) return;
  if (device_) {
    job_ = sum_on_device(on_its_way_);
    return;
  }
  job_ = ranks_.post("gradients", [this](Communicator& c) {
    lanes_ ? sum_in_lane_order(c, on_its_way_) : sum_in_library_order(c, on_its_way_);
  });
}

// Waits for the bucket on its way, and gives its memory back.
void GradientReducer::collect() {
  if (device_ && on_its_way_.gradients) {
    device_->wait(job_);
    if (lanes_) add_arrived(on_its_way_);
    if (lanes_ && stage_ == 0)
      gathered_ = device_->all_gather(on_its_way_.gradients, shards_.counts_of(on_its_way_.bucket));
  } else if (!backend_.planning() && on_its_way_.gradients) {
    const Phase phase("sum of gradients over ranks", Phase::waits);
    ranks_.wait(job_);
  }
  on_its_way_ = {};
}

// Where the sum of this rank's part of the bucket belongs.
Tensor GradientReducer::own_of(const OnItsWay& e) const {
  const Shards::Part& own = shards_.of_bucket(e.bucket, ranks_.rank());
  if (sums_each_) return Parameters::part(parameters_.sums, own.place());
  return own_gradients(e);
}

// This rank's part of the bucket's gradients.
Tensor GradientReducer::own_gradients(const OnItsWay& e) const {
  const Run own = shards_.of_bucket(e.bucket, ranks_.rank()).run;
  return Parameters::part(e.gradients, {own.begin - parameters_.buckets()[e.bucket].run.begin, own.count});
}

// What this rank has summed up so far it adds to what it gives: so nothing is left to add when the sum arrives.
int64_t GradientReducer::sum_on_device(const OnItsWay& e) {
  if (lanes_) return device_->all_to_all(e.gradients, shards_.counts_of(e.bucket), e.scratch);
  if (stage_ == 0) return device_->all_reduce(e.gradients);
  const Tensor own = own_of(e);
  if (sums_each_ && e.micro_batch > 0 && own.count() > 0)
    backend_.cast().convert({.y = {own_gradients(e), Write::accumulate}, .x = own});
  return device_->reduce_scatter(e.gradients, shards_.counts_of(e.bucket), own);
}

void GradientReducer::sum_in_library_order(Communicator& c, const OnItsWay& e) {
  if (stage_ == 0) return c.all_reduce(floats_of(e.gradients));
  const Tensor own = own_of(e);
  c.reduce_scatter(floats_of(e.gradients), shards_.counts_of(e.bucket),
                   e.scratch ? floats_of(e.scratch) : std::span<float>());
  sums_each_&& e.micro_batch > 0 ? add(own, e.scratch) : copy(own, e.scratch);
}

// Each rank gets its part of the bucket from all, and adds them in the order of the lanes.
void GradientReducer::sum_in_lane_order(Communicator& c, const OnItsWay& e) {
  const std::vector<int64_t> counts = shards_.counts_of(e.bucket);
  c.all_to_all(floats_of(e.gradients), counts, e.scratch ? floats_of(e.scratch) : std::span<float>());
  add_arrived(e);
  if (stage_ == 0) c.all_gather(memory_of(e.gradients), bytes_of(counts, sizeof(float)));
}

// What is left of the tree of lanes when each rank has added its own.
void GradientReducer::add_arrived(const OnItsWay& e) {
  if (sums_each_) return fold(e);
  const Tensor own = own_of(e);
  const int64_t count = own.count();
  const auto part = [&](int64_t r) { return Parameters::part(e.scratch, {r * count, count}); };
  if (count == 0) return;
  for (int64_t width = 1; width < ranks_.size(); width *= 2)
    for (int64_t r = 0; r + width < ranks_.size(); r += 2 * width) add(part(r), part(r + width));
  copy(own, part(0));
}

// The parts are of micro-batches that follow one another: a rank each.
void GradientReducer::fold(const OnItsWay& e) {
  const Shards::Part& own = shards_.of_bucket(e.bucket, ranks_.rank());
  const int64_t count = own.run.count;
  if (count == 0) return;
  for (int r = 0; r < ranks_.size(); ++r) {
    const int64_t number = e.micro_batch * ranks_.size() + r;
    if (number >= micro_batches_) return;
    const Tensor gradients = Parameters::part(e.scratch, {r * count, count});
    for (const LaneFold::Move& move : lanes_->moves(number)) {
      const Tensor place = Parameters::part(kept_[size_t(move.place)], own.place());
      if (move.kind == LaneFold::Move::add)
        add(gradients, place);
      else if (move.kind == LaneFold::Move::take)
        copy(gradients, place);
      else
        copy(place, gradients);
    }
    if (number + 1 == micro_batches_) copy(own_of(e), gradients);
  }
}

// On the host by the thread that communicates, beside those that compute: memory is the limit.
void GradientReducer::add(const Tensor& to, const Tensor& from) const {
  if (to.count() == 0) return;
  if (on_gpu_) return backend_.cast().convert({.y = {to, Write::accumulate}, .x = from});
  float* const sum = to.data<float>();
  const float* const more = from.data<float>();
  for (int64_t i = 0; i < to.count(); ++i) sum[i] += more[i];
}

void GradientReducer::copy(const Tensor& to, const Tensor& from) const {
  if (to.count() == 0) return;
  on_gpu_ ? backend_.copy(to, from) : void(std::ranges::copy(floats_of(from), to.data<float>()));
}

// -0 is what can be added to any number without changing a bit of it; 0 would turn -0 into 0.
void GradientReducer::fill_with_nothing() {
  const Tensor& all = parameters_.gradients;
  const std::vector<float> nothing(size_t(std::min<int64_t>(all.count(), chunk_elements)), -0.f);
  for (int64_t at = 0; at < all.count(); at += int64_t(nothing.size()))
    backend_.copy_from_host(Parameters::part(all, {at, std::min<int64_t>(int64_t(nothing.size()), all.count() - at)}),
                            nothing.data());
}

void GradientReducer::finish_sums() {
  if (ranks_.size() == 1) return;
  if (here_ == 0) {  // a rank without micro-batches takes part in the exchange
    fill_with_nothing();
    for (int b = 0; b < parameters_.buckets().size(); ++b) exchange(b, parameters_.buckets().gradients(b));
  }
  collect();
  if (device_ && lanes_ && stage_ == 0) device_->wait(gathered_);
}

// A sum of bit patterns, each of them zero on all ranks but one, is exact.
void GradientReducer::share_squares(const Tensor& squares) {
  if (backend_.planning()) return;
  const Phase phase("exchange of the gradients' norm", Phase::waits);
  if (device_) return device_->wait(device_->all_reduce(squares));
  ranks_.all_reduce(std::span(squares.data<int64_t>(), size_t(squares.count())));
}

void GradientReducer::share_largest(const Tensor& values) {
  if (backend_.planning() || ranks_.size() == 1) return;
  const Phase phase("exchange of largest magnitudes", Phase::waits);
  Exchange& exchange = device_ ? *device_ : *host_;
  exchange.wait(exchange.largest(values));
}

double GradientReducer::total(std::span<const double> losses) {
  loss_bits_.assign(size_t(micro_batches_), 0);
  for (size_t i = 0; i < losses.size(); ++i) loss_bits_[number_of(int64_t(i))] = std::bit_cast<int64_t>(losses[i]);
  if (!backend_.planning()) {
    const Phase phase("exchange of losses", Phase::waits);
    ranks_.all_reduce(std::span(loss_bits_));
  }
  double sum = 0;
  for (const int64_t bits : loss_bits_) sum += std::bit_cast<double>(bits);
  return sum;
}

void GradientReducer::share_weights() {
  if (stage_ == 0 || stage_ == 3 || ranks_.size() == 1 || backend_.planning()) return;
  const Phase phase("exchange of updated weights", Phase::waits);
  const auto weights_of = [this](int b) { return Parameters::part(parameters_.weights, parameters_.buckets()[b].run); };
  int64_t last = 0;
  for (int b = 0; b < parameters_.buckets().size(); ++b)
    last = device_ ? device_->all_gather(weights_of(b), shards_.counts_of(b))
                   : ranks_.post("weights", [=, this](Communicator& c) {
                       const Tensor bucket = weights_of(b);
                       c.all_gather(memory_of(bucket), bytes_of(shards_.counts_of(b), size_of(bucket.dtype())));
                     });
  device_ ? device_->wait(last) : ranks_.wait(last);
}

}  // namespace mixtape
