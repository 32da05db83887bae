#include "core/parameters.h"

#include <algorithm>
#include <numeric>

#include "core/base/dispatch.h"

namespace mixtape {
namespace {

// The same of so many rows; of a vector, elements.
Shape with_rows(const Shape& shape, int64_t rows) {
  return shape.rank() == 1 ? Shape{rows} : Shape{rows, shape.cols()};
}

}  // namespace

int ParameterLayout::add(std::string name, Shape shape, Init init, std::vector<int64_t> pieces, Cut cut) {
  const int id = int(entries_.size());
  if (!ids_.emplace(name, id).second) throw Error("parameters: two are named {}", name);
  if (!pieces.empty() && std::accumulate(pieces.begin(), pieces.end(), int64_t(0)) != shape[0])
    throw Error("parameters: the pieces of {} are not its {} rows", name, shape[0]);
  if (shape.rank() > 2 && cut != Cut::none) throw Error("parameters: {} is {}, and is to be cut", name, shape);
  ParameterEntry entry{std::move(name), shape, init, pieces};
  entry.cut = cut, entry.whole = shape, entry.whole_pieces = std::move(pieces);
  if (cut == Cut::columns) entry.shape = {shape.rows(), part_of(shape.cols(), slice_).count};
  if (cut == Cut::first && slice_.rank > 0) entry.shape = with_rows(shape, 0);
  if (cut == Cut::rows) {
    int64_t rows = entry.pieces.empty() ? part_of(shape[0], slice_).count : 0;
    for (int64_t& piece : entry.pieces) rows += piece = part_of(piece, slice_).count;
    entry.shape = with_rows(shape, rows);
  }
  entries_.push_back(std::move(entry));
  return id;
}

std::vector<Run> ParameterLayout::runs(int id) const {
  const ParameterEntry& entry = entries_[size_t(id)];
  std::vector<Run> runs;
  if (entry.cut == Cut::none || entry.cut == Cut::first) {
    if (entry.count() > 0) runs.push_back({0, entry.count()});
    return runs;
  }
  const int64_t cols = entry.whole.rank() == 1 ? 1 : entry.whole.cols();
  if (entry.cut == Cut::columns) {
    const Run here = part_of(cols, slice_);
    for (int64_t r = 0; r < entry.whole.rows(); ++r) runs.push_back({r * cols + here.begin, here.count});
    return runs;
  }
  int64_t first = 0;
  for (const int64_t piece : entry.whole_pieces.empty() ? std::vector{entry.whole[0]} : entry.whole_pieces) {
    const Run here = part_of(piece, slice_);
    runs.push_back({(first + here.begin) * cols, here.count * cols});
    first += piece;
  }
  return runs;
}

void ParameterLayout::finish() { assign_offsets(); }

void ParameterLayout::assign_offsets() {
  const auto aligned = [](int64_t count) { return (count + alignment - 1) / alignment * alignment; };
  int64_t offset = 0, whole_offset = 0;
  factored_count_ = without_hidden_count_ = 0;
  for (const bool learns : {true, false}) {
    for (auto entry = entries_.rbegin(); entry != entries_.rend(); ++entry) {
      if (entry->learns != learns || entry->coded) continue;
      entry->offset = offset, entry->whole_offset = whole_offset;
      offset += aligned(entry->count()), whole_offset += aligned(entry->whole.count());
      entry->factored_offset = factored_count_;
      if (learns) factored_count_ += entry->factored_count();
      entry->second_offset = without_hidden_count_;
      if (learns && !entry->is_hidden_matrix()) without_hidden_count_ += aligned(entry->count());
    }
    if (learns) learning_flat_count_ = offset, whole_learning_flat_count_ = whole_offset;
  }
  flat_count_ = offset, whole_flat_count_ = whole_offset;
  coded_count_ = code_scales_count_ = 0;
  for (ParameterEntry& entry : entries_) {
    if (!entry.coded) continue;
    entry.offset = coded_count_, entry.scale_offset = code_scales_count_;
    coded_count_ += aligned(entry.count()), code_scales_count_ += aligned(entry.shape.rows());
  }
}

void ParameterLayout::freeze(const std::vector<std::string>& names) {
  for (const std::string& name : names) entries_[size_t(find(name))].learns = false;
  if (learning_count() == 0) throw ConfigError("parameters.freeze: all parameters are frozen, so that nothing learns");
  assign_offsets();
}

void ParameterLayout::code_layer_weights() {
  if (slice_.ranks > 1) throw Error("parameters: ranks do not share out layers of int8 weights");
  for (ParameterEntry& entry : entries_)
    if (entry.is_layer_weight()) entry.coded = true, entry.learns = false;
  assign_offsets();
}

int64_t ParameterLayout::learning_count() const {
  int64_t n = 0;
  for (const ParameterEntry& entry : entries_) n += entry.learns ? entry.whole.count() : 0;
  return n;
}

int ParameterLayout::find(const std::string& name) const {
  const auto found = ids_.find(name);
  if (found == ids_.end()) throw Error("parameters: the model has no {}", name);
  return found->second;
}

int64_t ParameterLayout::parameter_count() const {
  int64_t n = 0;
  for (const ParameterEntry& entry : entries_) n += entry.whole.count();
  return n;
}

Parameters::Parameters(const ParameterLayout& layout, ParameterStorage storage, Backend& backend)
    : layout_(layout), storage_(storage), backend_(backend) {
  if (storage.gradients) buckets_.emplace(layout, storage.gradient_memory, backend);
  if (storage.sharding.ranks > 1 && !buckets_) throw Error("parameters: without gradients there are no shards");
  shards_.emplace(buckets_ ? buckets_->all() : std::vector<GradientBucket>{}, layout.learning_flat_count(),
                  storage.sharding);
  const int64_t learning = storage.shards_weights ? shards_->own_count() : layout.learning_flat_count();
  weights = backend.make({learning + layout.flat_count() - layout.learning_flat_count()}, storage.weights,
                         Category::parameters);
  if (layout.coded_count() > 0) {
    codes = backend.make({layout.coded_count()}, DType::i8, Category::parameters);
    code_scales = backend.make({layout.code_scales_count()}, DType::f32, Category::parameters);
  }
  const Shape flat{shards_->own_count()};
  if (storage.master != MasterWeights::none)
    master =
        make_state(storage.master == MasterWeights::fp32 ? DType::f32 : DType::u16, flat.count(), Category::master);
  if (storage.gradients) gradients = buckets_->flat();
  if (storage.sums) sums = backend.make(flat, DType::f32, Category::gradients);
  const MomentFormat format = storage.moments.format;
  if (storage.moments.first) m = make_moment(first_moment_type(format));
  if (storage.moments.second == SecondMoments::full) v = make_moment(second_moment_type(format));
  if (storage.moments.second == SecondMoments::factored || storage.moments.second == SecondMoments::without_hidden) {
    if (storage.sharding.ranks > 1) throw Error("parameters: second moments of some are not cut into shards");
    const bool factored = storage.moments.second == SecondMoments::factored;
    v.values = {backend, backend.make({factored ? layout.factored_count() : layout.without_hidden_count()},
                                      factored ? DType::f32 : second_moment_type(format), Category::optimizer)};
  }
  if (offloaded_bytes_ > 0 && !backend.planning()) take_outside();
  // The padding between parameters is never written again, so it stays 0 and out of every sum.
  for (const Tensor& t :
       {weights, sums, master.memory(), m.values.memory(), m.scales.memory(), v.values.memory(), v.scales.memory()})
    if (t && !backend.planning()) backend.zero(t);
}

FlatState Parameters::make_state(DType type, int64_t count, Category category) {
  if (!storage_.offload) return {backend_, backend_.make({count}, type, category)};
  const FlatState state(type, count, offloaded_bytes_);
  offloaded_bytes_ += offload_room(state.bytes());
  return state;
}

MomentState Parameters::make_moment(DType type) {
  const int64_t n = shards_->own_count();
  MomentState moment{make_state(type, n, Category::optimizer), {}};
  if (size_of(type) == 1) moment.scales = make_state(DType::f32, Moment::blocks_of(n), Category::optimizer);
  return moment;
}

void Parameters::take_outside() {
  outside_ = backend_.offload({"the optimizer's state", offloaded_bytes_, storage_.offload_place});
  for (FlatState* state : {&master, &m.values, &m.scales, &v.values, &v.scales})
    if (state->offloaded()) state->set_outside(outside_.get());
}

UpdateState Parameters::held_state(Run place) const {
  const bool of_all = storage_.moments.second == SecondMoments::full;
  const auto moment = [](const MomentState& s) { return Moment(s.values.memory(), s.scales.memory()); };
  return {part(master.memory(), place), moment(m).part(place.begin, place.count),
          of_all ? moment(v).part(place.begin, place.count) : moment(v)};
}

Tensor Parameters::slice(const Tensor& flat, int id) const {
  const ParameterEntry& entry = layout_[id];
  return Tensor(flat.raw() ? flat.raw() + entry.offset * size_of(flat.dtype()) : nullptr, entry.shape, flat.dtype());
}

Tensor Parameters::part(const Tensor& flat, Run run) {
  if (!flat) return {};
  return Tensor(flat.raw() ? flat.raw() + run.begin * size_of(flat.dtype()) : nullptr, {run.count}, flat.dtype());
}

std::vector<Shards::Part> Parameters::weight_parts(bool with_frozen) const {
  const int64_t learning = layout_.learning_flat_count(), frozen = layout_.flat_count() - learning;
  std::vector<Shards::Part> parts{{{0, learning}, 0}};
  if (storage_.shards_weights) parts = shards_->own();
  if (with_frozen && frozen > 0)
    parts.push_back({{learning, frozen}, storage_.shards_weights ? shards_->own_count() : learning});
  return in_whole(parts);
}

std::vector<Shards::Part> Parameters::learning_parts(int64_t each) const {
  if (layout_.slice().ranks > 1 && each > 1)
    throw Error("parameters: of {} elements that share a number ranks have parts", each);
  return in_whole(shards_->parts(shards_->sharding().rank, each));
}

std::vector<Shards::Part> Parameters::in_whole(const std::vector<Shards::Part>& parts) const {
  if (layout_.slice().ranks == 1) return parts;
  std::vector<int> order(size_t(layout_.size()));
  std::iota(order.begin(), order.end(), 0);
  std::ranges::sort(order, {}, [&](int id) { return layout_[id].offset; });
  std::vector<Shards::Part> found;
  auto part = parts.begin();
  for (const int id : order) {
    int64_t here = layout_[id].offset;
    for (const Run& run : layout_.runs(id)) {
      for (int64_t at = here, end = here + run.count; at < end;) {
        while (part != parts.end() && part->run.end() <= at) ++part;
        if (part == parts.end()) return found;
        const int64_t begin = std::max(at, part->run.begin), stop = std::min(end, part->run.end());
        if (begin >= stop) break;  // the next part is behind the run
        found.push_back(
            {{layout_[id].whole_offset + run.begin + begin - here, stop - begin}, part->at + begin - part->run.begin});
        at = stop;
      }
      here += run.count;
    }
  }
  return found;
}

int64_t Parameters::frozen_at(int id) const {
  const int64_t behind = layout_[id].offset - layout_.learning_flat_count();
  return behind + (storage_.shards_weights ? shards_->own_count() : layout_.learning_flat_count());
}

Tensor Parameters::weight(int id) const {
  const ParameterEntry& entry = layout_[id];
  if (entry.coded) return slice(codes, id);
  if (!entry.learns) return part(weights, {frozen_at(id), entry.count()}).reshaped(entry.shape);
  if (!storage_.shards_weights) return slice(weights, id);
  if (!source_) throw Error("parameters: weights are shared out, and nobody gathers {}", entry.name);
  const int bucket = buckets_->bucket_of(id);
  const int64_t begin = entry.offset - (*buckets_)[bucket].run.begin;
  return source_->weights_of(bucket).columns(begin, entry.count()).reshaped(entry.shape);
}

Tensor Parameters::code_scale(int id) const {
  const ParameterEntry& entry = layout_[id];
  return entry.coded ? part(code_scales, {entry.scale_offset, entry.shape.rows()}) : Tensor();
}

void Parameters::initialise(uint64_t seed) {
  if (backend_.planning()) return;
  std::vector<float> values;
  for (int id = 0; id < layout_.size(); ++id) {
    const ParameterEntry& entry = layout_[id];
    const int64_t count = entry.whole.count();
    values.assign(size_t(count), entry.init.kind == Init::ones ? 1.f : 0.f);
    if (entry.init.kind == Init::normal) {
      // The name, not the position in the layout, so that adding a parameter leaves all others as they were.
      uint64_t name_hash = 0xcbf29ce484222325ull;
      for (const char c : entry.name) name_hash = (name_hash ^ uint8_t(c)) * 0x100000001b3ull;
      const PhiloxKey key = philox_key(seed, name_hash);
      for (int64_t i = 0; i < count; i += 2) {
        const auto bits = philox(key, uint64_t(i), 0, Purpose::init);
        values[i] = entry.init.std * normal(bits[0], bits[1]);
        if (i + 1 < count) values[i + 1] = entry.init.std * normal(bits[2], bits[3]);
      }
      for (int64_t i = 0; i < entry.init.queries; ++i) values[i] *= entry.init.query_scale;
    }
    load(id, values.data());
  }
}

void Parameters::load(int id, const float* whole) {
  const ParameterEntry& entry = layout_[id];
  if (entry.coded) throw Error("parameters: {} is kept as codes, and numbers are given", entry.name);
  std::vector<float> slice;
  if (entry.cut != Cut::none)
    for (const Run& run : layout_.runs(id)) slice.insert(slice.end(), whole + run.begin, whole + run.end());
  const float* const values = entry.cut != Cut::none ? slice.data() : whole;
  // Into elements [to.begin, to.end()) of a flat buffer, as this function of each number.
  const auto put = [&]<class T>(const FlatState& flat, Run to, const float* from, T (*stored)(float)) {
    std::vector<T> converted(size_t(to.count));
    std::transform(from, from + to.count, converted.begin(), stored);
    flat.write(to.begin, to.count, converted.data());
  };
  const auto put_weights = [&](Run to, const float* from) {
    dispatch<float, fp16, bf16>(weights.dtype(), "parameters",
                                [&]<class T>() { put(FlatState(backend_, weights), to, from, rounded_weight<T>); });
  };
  if (!entry.learns) return put_weights({frozen_at(id), entry.count()}, values);
  if (!storage_.shards_weights) put_weights({entry.offset, entry.count()}, values);
  for (const Shards::Part& own : shards_->own()) {
    const int64_t begin = std::max(own.run.begin, entry.offset);
    const int64_t count = std::min(own.run.end(), entry.offset + entry.count()) - begin;
    if (count <= 0) continue;
    const Run place{own.at + begin - own.run.begin, count};
    const float* const from = values + (begin - entry.offset);
    if (storage_.shards_weights) put_weights(place, from);
    if (master && master.dtype() == DType::f32) master.write(place.begin, place.count, from);
    if (master && master.dtype() == DType::u16) put(master, place, from, remainder_of);
  }
}

void Parameters::load_codes(int id, const int8_t* from, const float* scales) {
  if (!layout_[id].coded) throw Error("parameters: {} is not kept as codes, and codes are given", layout_[id].name);
  backend_.copy_from_host(weight(id), from);
  backend_.copy_from_host(code_scale(id), scales);
}

void Parameters::store(int id, float* values) const {
  const bool has_master = master && layout_[id].learns;
  if (has_master && storage_.sharding.ranks > 1)
    throw Error("parameters: this rank has a part of the masters only, and {} is asked for", layout_[id].name);
  const int64_t begin = layout_[id].offset, count = layout_[id].count();
  if (has_master && master.dtype() == DType::f32) return master.read(values, begin, count);
  const Tensor from = weight(id);
  dispatch<float, fp16, bf16>(from.dtype(), "parameters", [&]<class T>() {
    std::vector<T> raw(from.count());
    backend_.copy_to_host(raw.data(), from);
    for (int64_t i = 0; i < from.count(); ++i) values[i] = float(raw[i]);
  });
  if (!has_master) return;
  std::vector<uint16_t> remainders(static_cast<size_t>(count));
  master.read(remainders.data(), begin, count);
  for (int64_t i = 0; i < from.count(); ++i) values[i] = master_of(bf16(values[i]), remainders[size_t(i)]);
}

std::vector<std::pair<const ParameterEntry*, UpdateTensor>> Parameters::learning_tensors(
    float weight_decay, const std::vector<ParameterFactors>& factors) const {
  std::vector<std::pair<const ParameterEntry*, UpdateTensor>> tensors;
  for (int id = 0; id < layout_.size(); ++id) {
    const ParameterEntry& entry = layout_[id];
    if (!entry.learns) continue;
    const ParameterFactors factor = factors.empty() ? ParameterFactors{} : factors[size_t(id)];
    tensors.push_back({&entry,
                       {.offset = entry.offset,
                        .cols = entry.count(),
                        .lr_factor = factor.lr,
                        .weight_decay = entry.decays() ? weight_decay * factor.weight_decay : 0.f,
                        .parameter = uint32_t(id)}});
  }
  std::sort(tensors.begin(), tensors.end(), [](auto& a, auto& b) { return a.second.offset < b.second.offset; });
  return tensors;
}

std::vector<UpdateRange> Parameters::update_ranges(float weight_decay,
                                                   const std::vector<ParameterFactors>& factors) const {
  std::vector<UpdateTensor> whole;
  for (const auto& [entry, tensor] : learning_tensors(weight_decay, factors)) whole.push_back(tensor);
  return ranges_of(whole);
}

std::vector<UpdateTensor> Parameters::update_tensors(float weight_decay,
                                                     const std::vector<ParameterFactors>& factors) const {
  std::vector<UpdateTensor> tensors;
  for (auto [entry, next] : learning_tensors(weight_decay, factors)) {
    const bool matrix = entry->is_matrix();
    const int64_t cols = matrix ? entry->shape.cols() : 1, rows = entry->count() / cols;
    next.column_moments = entry->factored_offset;
    next.row_moments = entry->factored_offset + entry->n_pieces() * cols;
    for (const int64_t piece : entry->pieces.empty() ? std::vector{rows} : entry->pieces) {
      next.rows = matrix ? piece : 1, next.cols = matrix ? cols : piece;
      tensors.push_back(next);
      next.offset += next.count(), next.first += next.count();
      next.column_moments += next.cols, next.row_moments += next.rows;
    }
  }
  return tensors;
}

std::vector<UpdateRange> Parameters::ranges_of(const std::vector<UpdateTensor>& tensors) {
  std::vector<UpdateRange> ranges;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const UpdateTensor& t = tensors[i];
    const int64_t end = t.offset + t.count();
    for (int64_t at = t.offset; at < end;) {
      const int64_t stop = std::min(end, (at / chunk_elements + 1) * chunk_elements);
      ranges.push_back({.offset = at,
                        .count = stop - at,
                        .lr_factor = t.lr_factor,
                        .weight_decay = t.weight_decay,
                        .tensor = int32_t(i),
                        .parameter = t.parameter,
                        .first = t.first + at - t.offset});
      at = stop;
    }
  }
  return ranges;
}

}  // namespace mixtape
