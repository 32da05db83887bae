// Attention forward on tiles: FlashAttention-2 with queries in the lanes.
//
// For a tile of keys and a panel of queries: S = K Q (keys down, queries across), softmax statistics lane by lane, then
// O += V P, where K and V are read as they lie and only the queries have been transposed. A token of decoding is one
// query: there keys are the lanes, and the rows are the heads of a group, so that K and V are read once.
#include "core/cpu/attention/problem.h"
#include "core/cpu/targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/cpu/attention/forward.cpp"
#include "hwy/foreach_target.h"
//
#include "core/cpu/attention/softmax-inl.h"

HWY_BEFORE_NAMESPACE();
namespace mixtape::flash::HWY_NAMESPACE {

// The state of one panel of queries between tiles of keys.
struct Running {
  float maximum[widest_panel], sum[widest_panel];
};

// Turns scores [keys][panel] into exp2(score - maximum), updates the running maximum and sum, and gives the factor for
// what was summed before. `bytes` are dropout's, or null: dropped elements become 0, but count in the sum.
template <bool masked, Bias bias>
HWY_NOINLINE void softmax_step(float* scores, int64_t keys, int64_t first_key, const PanelQueries& queries,
                               Running& running, float* factor, const uint8_t* bytes, int64_t byte_stride,
                               int threshold) {
  const LaneQueries q[2] = {{queries, 0}, {queries, 1}};
  V maximum[2] = {hn::LoadU(f32, running.maximum), hn::LoadU(f32, running.maximum + lanes)};
  const V before[2] = {maximum[0], maximum[1]};
  for (int64_t j = 0; j < keys; ++j) {
    const float* values = bias == Bias::relative ? queries.values + queries.by_distance(first_key + j) : nullptr;
    for (int h = 0; h < 2; ++h) {
      float* at = scores + j * panel + h * lanes;
      V s = hn::LoadU(f32, at);
      const V key = hn::Set(f32, float(first_key + j));
      if constexpr (bias == Bias::slope) s = q[h].biased(s, key);
      if constexpr (bias == Bias::relative) s = hn::Add(s, hn::LoadU(f32, values + h * lanes));
      if constexpr (masked) s = hn::IfThenElse(q[h].sees(key), s, hn::Neg(hn::Inf(f32)));
      if constexpr (bias != Bias::none || masked) hn::StoreU(s, f32, at);
      maximum[h] = hn::Max(maximum[h], s);
    }
  }
  V sum[2] = {hn::Zero(f32), hn::Zero(f32)};
  for (int64_t j = 0; j < keys; ++j)
    for (int h = 0; h < 2; ++h) {
      float* at = scores + j * panel + h * lanes;
      V p = exp2(hn::Sub(hn::LoadU(f32, at), maximum[h]));
      sum[h] = hn::Add(sum[h], p);
      if (bytes) p = hn::IfThenElseZero(kept(bytes + j * byte_stride + h * lanes, threshold), p);
      hn::StoreU(p, f32, at);
    }
  for (int h = 0; h < 2; ++h) {
    const V f = exp2(hn::Sub(before[h], maximum[h]));
    hn::StoreU(f, f32, factor + h * lanes);
    hn::StoreU(hn::MulAdd(hn::LoadU(f32, running.sum + h * lanes), f, sum[h]), f32, running.sum + h * lanes);
    hn::StoreU(maximum[h], f32, running.maximum + h * lanes);
  }
}

class ForwardTile {
 public:
  ForwardTile(const Problem& p, const ForwardTask& t, float* scratch)
      : p_(p),
        t_(t),
        d_(p.spec.head_dim),
        padded_(p.padded_dim()),
        visible_(p.visible(t.segment)),
        dropout_(nullptr, 0) {
    Pieces pieces(scratch);
    k_ = pieces.take(key_tile * padded_);
    v_ = pieces.take(key_tile * padded_);
    q_ = pieces.take(forward_queries * padded_);
    o_ = pieces.take(forward_queries * padded_);
    scores_ = pieces.take(std::max(key_tile, widest_panel) * std::max(widest_panel, padded_));
    dropout_ = DropoutTile(pieces.take(DropoutTile::floats(forward_queries)), forward_queries);
  }

  void run() {
    load_queries();
    const int64_t from = visible_.first(t_.begin), to = visible_.end(t_.end - 1);
    for (int64_t tile = from / key_tile * key_tile; tile < to; tile += key_tile)
      visit(std::max(tile, from), std::min(tile + key_tile, to));
    store();
  }

 private:
  int64_t panels() const { return (t_.end - t_.begin + panel - 1) / panel; }
  int64_t kv_head() const { return t_.head / p_.group(); }
  PanelQueries queries(int64_t n) const { return {p_, visible_, t_.head, t_.begin + n * panel, t_.end - 1}; }

  void load_queries() {
    const float scale = p_.spec.scale * log2_e;
    for (int64_t n = 0; n < panels(); ++n) {
      const int64_t i = t_.begin + n * panel, count = std::min(panel, t_.end - i);
      pack(p_.q, t_.segment.q_start + i, count, t_.head * d_, d_, scores_, padded_);
      zero(scores_ + count * padded_, (panel - count) * padded_);
      transpose(scores_, padded_, panel, padded_, scale, q_ + n * panel * padded_, panel);
      std::fill_n(running_[n].maximum, panel, lowest);
      std::fill_n(running_[n].sum, panel, 0.f);
    }
    zero(o_, panels() * panel * padded_);
  }

  void visit(int64_t begin, int64_t end) {
    const int64_t key_row = t_.segment.k_start + begin;
    pack(p_.k, key_row, end - begin, kv_head() * d_, d_, k_, padded_);
    pack(p_.v, key_row, end - begin, kv_head() * d_, d_, v_, padded_);
    if (p_.spec.dropout_threshold > 0)
      dropout_.fill(p_, t_.head, t_.segment.q_start + t_.begin, t_.end - t_.begin, key_row, end - begin);
    for (int64_t n = 0; n < panels(); ++n) {
      const PanelQueries q = queries(n);
      const int64_t from = std::max(begin, q.from), to = std::min(end, q.to);
      if (from < to) visit_panel(n, q, from, to, from - begin);
    }
  }

  void visit_panel(int64_t n, const PanelQueries& q, int64_t from, int64_t to, int64_t row) {
    const int64_t keys = to - from;
    multiply<Lies::down, Into::replace>(keys, {k_ + row * padded_, padded_}, {q_ + n * panel * padded_, panel}, d_,
                                        scores_, panel);
    constexpr decltype(&softmax_step<true, Bias::none>) steps[2][3] = {
        {softmax_step<true, Bias::none>, softmax_step<true, Bias::slope>, softmax_step<true, Bias::relative>},
        {softmax_step<false, Bias::none>, softmax_step<false, Bias::slope>, softmax_step<false, Bias::relative>}};
    const auto step = steps[q.sees_all(from, to)][int(q.bias())];
    const int threshold = p_.spec.dropout_threshold;
    const uint8_t* bytes =
        threshold > 0 ? dropout_.at(t_.segment.q_start + t_.begin + n * panel, t_.segment.k_start + from) : nullptr;
    float factor[widest_panel];
    step(scores_, keys, from, q, running_[n], factor, bytes, DropoutTile::stride(forward_queries), threshold);
    multiply<Lies::across, Into::add_scaled>(d_, {v_ + row * padded_, padded_}, {scores_, panel}, keys,
                                             o_ + n * panel * padded_, panel, factor);
    if (computed_scores) *computed_scores += keys * panel;
  }

  void store() {
    for (int64_t n = 0; n < panels(); ++n) {
      const int64_t i = t_.begin + n * panel, count = std::min(panel, t_.end - i);
      const int64_t row = t_.segment.q_start + i;
      float* o = o_ + n * panel * padded_;
      const V left = normalisation(running_[n].sum), right = normalisation(running_[n].sum + lanes);
      for (int64_t c = 0; c < padded_; ++c) {
        hn::StoreU(hn::Mul(hn::LoadU(f32, o + c * panel), left), f32, o + c * panel);
        hn::StoreU(hn::Mul(hn::LoadU(f32, o + c * panel + lanes), right), f32, o + c * panel + lanes);
      }
      transpose(o, panel, padded_, panel, 1.f, scores_, padded_);
      unpack(scores_, padded_, count, d_, 1.f, p_.out, row, t_.head * d_, false);
      if (!p_.lse) continue;
      for (int64_t r = 0; r < count; ++r)
        p_.lse[t_.head * p_.rows_q + row + r] = running_[n].maximum[r] * ln_2 + std::log(running_[n].sum[r]);
    }
  }
  // 0 for a query that sees no key.
  V normalisation(const float* sums) const {
    const V sum = hn::LoadU(f32, sums);
    return hn::IfThenZeroElse(hn::Eq(sum, hn::Zero(f32)), hn::Div(hn::Set(f32, p_.keep_scale()), sum));
  }

  const Problem& p_;
  const ForwardTask& t_;
  const int64_t d_, padded_;
  const Visible visible_;
  float *k_, *v_, *q_, *o_, *scores_;
  DropoutTile dropout_;
  Running running_[forward_queries / panel];
};

void forward(const Problem& p, const ForwardTask& t, float* scratch) { ForwardTile(p, t, scratch).run(); }

// One row of scores becomes exp2(score - maximum); gives the factor for what was summed before.
float decode_softmax(float* scores, int64_t keys, float slope, int64_t distance, float& maximum, float& sum) {
  const V bias = hn::Set(f32, slope), position = hn::Iota(f32, float(distance));
  V most = hn::Set(f32, maximum);
  for (int64_t j = 0; j < key_tile; j += lanes) {
    V s = hn::MulAdd(bias, hn::Add(position, hn::Set(f32, float(j))), hn::LoadU(f32, scores + j));
    s = hn::IfThenElse(hn::Lt(hn::Iota(f32, float(j)), hn::Set(f32, float(keys))), s, hn::Neg(hn::Inf(f32)));
    hn::StoreU(s, f32, scores + j);
    most = hn::Max(most, s);
  }
  most = hn::MaxOfLanes(f32, most);
  V total = hn::Zero(f32);
  for (int64_t j = 0; j < key_tile; j += lanes) {
    const V p = exp2(hn::Sub(hn::LoadU(f32, scores + j), most));
    total = hn::Add(total, p);
    hn::StoreU(p, f32, scores + j);
  }
  const float factor = hn::GetLane(exp2(hn::Sub(hn::Set(f32, maximum), most)));
  sum = sum * factor + hn::GetLane(hn::SumOfLanes(f32, total));
  maximum = hn::GetLane(most);
  return factor;
}

void decode(const Problem& p, const DecodeTask& t, float* scratch) {
  const int64_t d = p.spec.head_dim, padded = p.padded_dim(), heads = p.group(), head = t.kv_head * heads;
  const Visible visible = p.visible(t.segment);
  Pieces pieces(scratch);
  float* rows = pieces.take(key_tile * padded);
  float* keys = pieces.take(key_tile * padded);  // [d][key]
  float* q = pieces.take(heads * padded);
  float* o = pieces.take(heads * padded);
  float* scores = pieces.take(heads * key_tile);
  float* statistics = pieces.take(2 * heads);
  for (int64_t h = 0; h < heads; ++h) {
    pack(p.q, t.segment.q_start, 1, (head + h) * d, d, q + h * padded, padded);
    statistics[2 * h] = lowest, statistics[2 * h + 1] = 0;
  }
  const V scale = hn::Set(f32, p.spec.scale * log2_e);
  for (int64_t i = 0; i < heads * padded; i += lanes) hn::StoreU(hn::Mul(hn::LoadU(f32, q + i), scale), f32, q + i);
  zero(o, heads * padded);

  const int64_t from = visible.first(0), to = visible.end(0);
  for (int64_t j = from; j < to; j += key_tile) {
    const int64_t count = std::min(key_tile, to - j);
    pack(p.k, t.segment.k_start + j, count, t.kv_head * d, d, rows, padded);
    zero(rows + count * padded, (round_up(count, 4) - count) * padded);
    transpose(rows, padded, round_up(count, 4), padded, 1.f, keys, key_tile);
    multiply_wide<Lies::down, Into::replace>(heads, {q, padded}, {keys, key_tile}, d, scores, key_tile,
                                             round_up(count, panel));
    for (int64_t h = 0; h < heads; ++h) {
      const float slope = p.slopes ? p.slopes[head + h] * log2_e : 0.f;
      if (const RelativeBias& relative = p.relative; relative.values)
        for (int64_t n = 0; n < count; ++n)
          scores[h * key_tile + n] +=
              relative.values[(head + h) * relative.width() + relative.at(visible.aligned(0) - j - n)];
      const float factor = decode_softmax(scores + h * key_tile, count, slope, j - visible.aligned(0),
                                          statistics[2 * h], statistics[2 * h + 1]);
      for (int64_t c = 0; c < padded; c += lanes) {
        float* at = o + h * padded + c;
        hn::StoreU(hn::Mul(hn::LoadU(f32, at), hn::Set(f32, factor)), f32, at);
      }
    }
    pack(p.v, t.segment.k_start + j, count, t.kv_head * d, d, rows, padded);
    multiply_wide<Lies::down, Into::add>(heads, {scores, key_tile}, {rows, padded}, count, o, padded,
                                         round_up(d, panel));
  }
  if (computed_scores) *computed_scores += heads * std::max<int64_t>(to - from, 0);
  for (int64_t h = 0; h < heads; ++h) {
    const float maximum = statistics[2 * h], sum = statistics[2 * h + 1];
    unpack(o + h * padded, padded, 1, d, sum == 0 ? 0.f : 1.f / sum, p.out, t.segment.q_start, (head + h) * d, false);
    if (p.lse) p.lse[(head + h) * p.rows_q + t.segment.q_start] = maximum * ln_2 + std::log(sum);
  }
}

int64_t forward_scratch(const AttentionSpec& spec) {
  const int64_t padded = round_up(spec.head_dim, widest_panel), heads = spec.n_heads / spec.n_kv_heads;
  const int64_t tile = 2 * (key_tile + forward_queries) * padded + key_tile * std::max(widest_panel, padded) +
                       DropoutTile::floats(forward_queries);
  const int64_t token = 2 * key_tile * padded + heads * (2 * padded + key_tile + 2);
  return std::max(tile, token) + 256;  // pieces begin on cache lines
}

}  // namespace mixtape::flash::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mixtape::flash {

HWY_EXPORT(forward);
HWY_EXPORT(decode);
HWY_EXPORT(forward_scratch);

void forward(const Problem& problem, const ForwardTask& task, float* scratch) {
  HWY_DYNAMIC_DISPATCH(forward)(problem, task, scratch);
}
void decode(const Problem& problem, const DecodeTask& task, float* scratch) {
  HWY_DYNAMIC_DISPATCH(decode)(problem, task, scratch);
}
int64_t forward_scratch(const AttentionSpec& spec) { return HWY_DYNAMIC_DISPATCH(forward_scratch)(spec); }

}  // namespace mixtape::flash
#endif
