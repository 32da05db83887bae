// Attention backward on tiles: five products for each tile of keys and of queries.
//
//   S = K Q, dP = V dO (keys down, queries across);  P = exp2(S - lse), dS = P (dP - delta), delta[i] = sum(dO[i] O[i])
//   dQ += K dS,  dV += P dO,  dK += dS Q
//
// One function serves three cuts of the work. A task that has all queries and keys of a key/value head owns all three
// gradients and does five products. Where there are fewer such tasks than threads, tasks own the queries or the keys of
// one tile and compute S and dP twice: seven products. Each sum runs in the same order in both, so the bits are the
// same, and the choice may depend on the number of threads.
#include "core/cpu/attention/problem.h"
#include "core/cpu/targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/cpu/attention/backward.cpp"
#include "hwy/foreach_target.h"
//
#include "core/cpu/attention/softmax-inl.h"

HWY_BEFORE_NAMESPACE();
namespace mixtape::flash::HWY_NAMESPACE {

struct PanelRows {
  float lse[widest_panel], delta[widest_panel];
};

// scores becomes P as dV takes it (dropped elements 0, kept ones scaled), gradients (dP) becomes dS.
template <bool masked, Bias bias>
HWY_NOINLINE void gradient_step(float* scores, float* gradients, int64_t keys, int64_t first_key,
                                const PanelQueries& queries, const PanelRows& rows, const uint8_t* bytes,
                                int64_t byte_stride, int threshold, float keep_scale) {
  const LaneQueries q[2] = {{queries, 0}, {queries, 1}};
  const V lse[2] = {hn::LoadU(f32, rows.lse), hn::LoadU(f32, rows.lse + lanes)};
  const V delta[2] = {hn::LoadU(f32, rows.delta), hn::LoadU(f32, rows.delta + lanes)};
  const V scale = hn::Set(f32, keep_scale);
  for (int64_t j = 0; j < keys; ++j) {
    const float* values = bias == Bias::relative ? queries.values + queries.by_distance(first_key + j) : nullptr;
    for (int h = 0; h < 2; ++h) {
      float* at = scores + j * backward_queries + h * lanes;
      float* gradient = gradients + j * backward_queries + h * lanes;
      V s = hn::LoadU(f32, at), dp = hn::LoadU(f32, gradient);
      const V key = hn::Set(f32, float(first_key + j));
      if constexpr (bias == Bias::slope) s = q[h].biased(s, key);
      if constexpr (bias == Bias::relative) s = hn::Add(s, hn::LoadU(f32, values + h * lanes));
      V p = exp2(hn::Sub(s, lse[h]));
      if constexpr (masked) p = hn::IfThenElseZero(q[h].sees(key), p);
      V dropped = p;
      if (bytes) {
        const auto keep = kept(bytes + j * byte_stride + h * lanes, threshold);
        dropped = hn::IfThenElseZero(keep, hn::Mul(p, scale));
        dp = hn::IfThenElseZero(keep, hn::Mul(dp, scale));
      }
      hn::StoreU(dropped, f32, at);
      hn::StoreU(hn::Mul(p, hn::Sub(dp, delta[h])), f32, gradient);
    }
  }
}

// Adds dS of a panel to sums by distance. The sums of neighbouring keys overlap but for one element, and what was just
// stored cannot be loaded from another address at once: so keys are taken that lie a panel apart.
HWY_NOINLINE void add_by_distance(const float* gradients, int64_t keys, int64_t first_key, const PanelQueries& queries,
                                  float* sums) {
  for (int64_t first = 0; first < panel; ++first)
    for (int64_t j = first; j < keys; j += panel) {
      const float* from = gradients + j * backward_queries;
      float* to = sums + queries.by_distance(first_key + j);
      for (int64_t h = 0; h < panel; h += lanes)
        hn::StoreU(hn::Add(hn::LoadU(f32, to + h), hn::LoadU(f32, from + h)), f32, to + h);
    }
}

class BackwardTile {
 public:
  BackwardTile(const BackwardProblem& p, const BackwardTask& t, float* scratch)
      : p_(p),
        t_(t),
        d_(p.spec.head_dim),
        padded_(p.padded_dim()),
        visible_(p.visible(t.segment)),
        dropout_(nullptr, 0) {
    Pieces pieces(scratch);
    for (float** tile : {&k_, &v_, &s_, &ds_})
      *tile = pieces.take(key_tile * (tile == &k_ || tile == &v_ ? padded_ : backward_queries));
    for (float** tile : {&q_, &do_, &q_across_, &do_across_, &dq_}) *tile = pieces.take(backward_queries * padded_);
    dropout_ = DropoutTile(pieces.take(DropoutTile::floats(backward_queries)), backward_queries);
    relative_sums_ = pieces.take(p.relative_sums && t.owns_dq ? p.relative.width() : 0);
    dk_ = pieces.take((t.k_end - t.k_begin) * padded_);
    dv_ = pieces.take((t.k_end - t.k_begin) * padded_);
  }

  void run() {
    const int64_t keys = t_.k_end - t_.k_begin;
    if (t_.owns_dkv) zero(dk_, keys * padded_), zero(dv_, keys * padded_);
    for (head_ = t_.head; head_ < t_.head + t_.heads; ++head_)
      for (int64_t i = t_.q_begin; i < t_.q_end; i += backward_queries)
        visit_queries(i, std::min(i + backward_queries, t_.q_end));
    if (!t_.owns_dkv) return;
    const int64_t row = t_.segment.k_start + t_.k_begin, col = kv_head() * d_;
    store(p_.write_dk, dk_, keys, p_.spec.scale, p_.dk, row, col);
    store(p_.write_dv, dv_, keys, 1.f, p_.dv, row, col);
  }

 private:
  int64_t kv_head() const { return t_.head / p_.group(); }
  int64_t panels() const { return (end_ - begin_ + panel - 1) / panel; }

  void store(Write write, const float* from, int64_t count, float factor, const Rows& to, int64_t row, int64_t col) {
    if (write == Write::none) return;
    unpack(from, padded_, count, d_, factor, to, row, col, write == Write::accumulate);
  }

  void visit_queries(int64_t begin, int64_t end) {
    begin_ = begin, end_ = end;
    const int64_t from = std::max(t_.k_begin, visible_.first(begin)), to = std::min(t_.k_end, visible_.end(end - 1));
    if (from >= to && !t_.owns_dq) return;
    zero(dq_, panels() * panel * padded_);
    if (sums_by_distance()) zero(relative_sums_, p_.relative.width());
    if (from < to) load_queries();
    for (int64_t tile = from / key_tile * key_tile; tile < to; tile += key_tile)
      visit_keys(std::max(tile, from), std::min(tile + key_tile, to));
    if (t_.owns_dq) store_dq();
    if (sums_by_distance()) store_relative_sums();
  }
  bool sums_by_distance() const { return t_.owns_dq && p_.relative_sums; }

  void load_queries() {
    const int64_t row = t_.segment.q_start + begin_, count = end_ - begin_, rows = panels() * panel;
    const float* out = dq_;  // free until the first product
    pack(p_.out, row, count, head_ * d_, d_, dq_, padded_);
    for (const auto& [from, to, across, scale] :
         {std::tuple(p_.q, q_, q_across_, p_.spec.scale * log2_e), std::tuple(p_.dout, do_, do_across_, 1.f)}) {
      pack(from, row, count, head_ * d_, d_, to, padded_);
      zero(to + count * padded_, (rows - count) * padded_);
      for (int64_t n = 0; n < panels(); ++n)
        transpose(to + n * panel * padded_, padded_, panel, padded_, scale, across + n * panel * padded_, panel);
    }
    for (int64_t r = 0; r < rows; ++r) {
      PanelRows& panel_rows = rows_[r / panel];
      panel_rows.delta[r % panel] = 0;
      panel_rows.lse[r % panel] = 1e30f;  // no query: P is 0
      if (r >= count) continue;
      V sum = hn::Zero(f32);
      for (int64_t c = 0; c < padded_; c += lanes)
        sum = hn::MulAdd(hn::LoadU(f32, out + r * padded_ + c), hn::LoadU(f32, do_ + r * padded_ + c), sum);
      panel_rows.delta[r % panel] = hn::GetLane(hn::SumOfLanes(f32, sum));
      const float lse = p_.lse[head_ * p_.rows_q + row + r];
      panel_rows.lse[r % panel] = lse == -std::numeric_limits<float>::infinity() ? 1e30f : lse * log2_e;
    }
    zero(dq_, rows * padded_);
  }

  void visit_keys(int64_t begin, int64_t end) {
    const int64_t key_row = t_.segment.k_start + begin;
    pack(p_.k, key_row, end - begin, kv_head() * d_, d_, k_, padded_);
    pack(p_.v, key_row, end - begin, kv_head() * d_, d_, v_, padded_);
    if (p_.spec.dropout_threshold > 0)
      dropout_.fill(p_, head_, t_.segment.q_start + begin_, end_ - begin_, key_row, end - begin);
    bool whole = true;  // every panel sees every key of the tile
    for (int64_t n = 0; n < panels(); ++n) {
      const PanelQueries q = queries(n);
      const int64_t from = std::max(begin, q.from), to = std::min(end, q.to);
      whole = whole && from == begin && to == end;
      if (from < to) visit_panel(n, q, from, to, from - begin);
    }
    if (!t_.owns_dkv) return;
    // Whole tiles keep dK and dV in registers over all queries; at the edges only what is visible is multiplied.
    if (whole) return add_dkv(0, panels() * panel, begin, end, 0);
    for (int64_t n = 0; n < panels(); ++n) {
      const PanelQueries q = queries(n);
      const int64_t from = std::max(begin, q.from), to = std::min(end, q.to);
      if (from < to) add_dkv(n * panel, panel, from, to, from - begin);
    }
  }

  PanelQueries queries(int64_t n) const { return {p_, visible_, head_, begin_ + n * panel, end_ - 1}; }

  void visit_panel(int64_t n, const PanelQueries& q, int64_t from, int64_t to, int64_t row) {
    const int64_t keys = to - from, at = n * panel * padded_;
    float* s = s_ + row * backward_queries + n * panel;
    float* ds = ds_ + row * backward_queries + n * panel;
    multiply<Lies::down, Into::replace>(keys, {k_ + row * padded_, padded_}, {q_across_ + at, panel}, d_, s,
                                        backward_queries);
    multiply<Lies::down, Into::replace>(keys, {v_ + row * padded_, padded_}, {do_across_ + at, panel}, d_, ds,
                                        backward_queries);
    constexpr decltype(&gradient_step<true, Bias::none>) steps[2][3] = {
        {gradient_step<true, Bias::none>, gradient_step<true, Bias::slope>, gradient_step<true, Bias::relative>},
        {gradient_step<false, Bias::none>, gradient_step<false, Bias::slope>, gradient_step<false, Bias::relative>}};
    const auto step = steps[q.sees_all(from, to)][int(q.bias())];
    const int threshold = p_.spec.dropout_threshold;
    const uint8_t* bytes =
        threshold > 0 ? dropout_.at(t_.segment.q_start + begin_ + n * panel, t_.segment.k_start + from) : nullptr;
    step(s, ds, keys, from, q, rows_[n], bytes, DropoutTile::stride(backward_queries), threshold, p_.keep_scale());
    if (sums_by_distance()) add_by_distance(ds, keys, from, q, relative_sums_);
    if (t_.owns_dq)
      multiply<Lies::across, Into::add>(d_, {k_ + row * padded_, padded_}, {ds, backward_queries}, keys, dq_ + at,
                                        panel);
    if (computed_scores) *computed_scores += keys * panel;
  }

  // Queries [query, query + count) of the tile and keys [from, to), which lie from `row` on.
  void add_dkv(int64_t query, int64_t count, int64_t from, int64_t to, int64_t row) {
    const int64_t tile = row * backward_queries + query, at = (from - t_.k_begin) * padded_;
    const int64_t columns = round_up(d_, panel), skip = query * padded_;
    multiply_wide<Lies::down, Into::add>(to - from, {s_ + tile, backward_queries}, {do_ + skip, padded_}, count,
                                         dv_ + at, padded_, columns);
    multiply_wide<Lies::down, Into::add>(to - from, {ds_ + tile, backward_queries}, {q_ + skip, padded_}, count,
                                         dk_ + at, padded_, columns);
  }

  void store_dq() {
    for (int64_t n = 0; n < panels(); ++n) {
      const int64_t i = begin_ + n * panel, count = std::min(panel, end_ - i);
      transpose(dq_ + n * panel * padded_, panel, padded_, panel, 1.f, q_across_, padded_);
      store(p_.write_dq, q_across_, count, p_.spec.scale, p_.dq, t_.segment.q_start + i, head_ * d_);
    }
  }

  // A bucket's distances lie side by side.
  void store_relative_sums() {
    const int64_t heads = p_.spec.n_heads, buckets = p_.spec.relative_buckets, width = p_.relative.width();
    const int64_t tile = t_.first_tile + begin_ / backward_queries;
    float* to = p_.relative_sums + tile * buckets * heads + head_;
    for (int64_t b = 0; b < buckets; ++b) to[b * heads] = 0;
    for (int64_t d = 0; d < width;) {
      const int32_t bucket = p_.relative.buckets[d];
      float sum = 0;
      for (; d < width && p_.relative.buckets[d] == bucket; ++d) sum += relative_sums_[d];
      to[bucket * heads] += sum;
    }
  }

  const BackwardProblem& p_;
  const BackwardTask& t_;
  const int64_t d_, padded_;
  const Visible visible_;
  float *k_, *v_, *s_, *ds_, *q_, *do_, *q_across_, *do_across_, *dq_, *dk_, *dv_, *relative_sums_;
  DropoutTile dropout_;
  PanelRows rows_[backward_queries / panel];
  int64_t head_ = 0, begin_ = 0, end_ = 0;
};

void backward(const BackwardProblem& p, const BackwardTask& t, float* scratch) { BackwardTile(p, t, scratch).run(); }

int64_t backward_scratch(const AttentionSpec& spec, int64_t keys) {
  const int64_t padded = round_up(spec.head_dim, widest_panel);
  return 2 * key_tile * (padded + backward_queries) + 5 * backward_queries * padded +
         DropoutTile::floats(backward_queries) + 2 * keys * padded + 256;  // pieces begin on cache lines
}

}  // namespace mixtape::flash::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mixtape::flash {

HWY_EXPORT(backward);
HWY_EXPORT(backward_scratch);

void backward(const BackwardProblem& problem, const BackwardTask& task, float* scratch) {
  HWY_DYNAMIC_DISPATCH(backward)(problem, task, scratch);
}
int64_t backward_scratch(const AttentionSpec& spec, int64_t keys) {
  return HWY_DYNAMIC_DISPATCH(backward_scratch)(spec, keys);
}

}  // namespace mixtape::flash
#endif
