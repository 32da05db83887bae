// What happens to scores between the products: 2^x, which keys a panel of queries sees, biases, and dropout. Include
// after foreach_target.h.
//
// Scores lie transposed, [key][query], so that a query is a lane: row statistics need no sums across lanes, and a row's
// result cannot depend on the other rows. Softmax is in base 2, with log2(e) folded into the scale of the queries.
#if defined(MIXTAPE_CPU_ATTENTION_SOFTMAX_H) == defined(HWY_TARGET_TOGGLE)
#ifdef MIXTAPE_CPU_ATTENTION_SOFTMAX_H
#undef MIXTAPE_CPU_ATTENTION_SOFTMAX_H
#else
#define MIXTAPE_CPU_ATTENTION_SOFTMAX_H
#endif

#include "core/cpu/attention/tiles-inl.h"
#include "core/cpu/vector_philox.h"

HWY_BEFORE_NAMESPACE();
namespace mixtape::flash::HWY_NAMESPACE {

constexpr float log2_e = 1.44269504f;
constexpr float ln_2 = 0.693147181f;
constexpr float lowest = -1e38f;  // below every score, and finite: the maximum before the first key

// 2^x for x < 127, error 1 unit in the last place; 0 below -126.5, exactly 1 at 0, NaN at NaN. x = n + f with |f| <=
// 1/2; 2^f = 1 + f p(f), a minimax fit.
HWY_INLINE V exp2(V x) {
  const hn::RebindToSigned<F> i32;
  const V least = hn::Set(f32, -127.f);
#if HWY_TARGET <= HWY_AVX2  // x86 returns the second argument where one is NaN
  x = hn::Max(least, x);
#else
  x = hn::IfThenElse(hn::Lt(x, least), least, x);
#endif
  // Adding 1.5 * 2^23 rounds to an integer; 127 more leaves the biased exponent in the low bits.
  const V magic = hn::Set(f32, 12582912.f + 127.f);
  const V shifted = hn::Add(x, magic);
  const V f = hn::Sub(x, hn::Sub(shifted, magic));
  V y = hn::Set(f32, 0.000154614449f);
  y = hn::MulAdd(y, f, hn::Set(f32, 0.0013400428f));
  y = hn::MulAdd(y, f, hn::Set(f32, 0.00961805694f));
  y = hn::MulAdd(y, f, hn::Set(f32, 0.0555032715f));
  y = hn::MulAdd(y, f, hn::Set(f32, 0.240226507f));
  y = hn::MulAdd(y, f, hn::Set(f32, 0.693147182f));
  y = hn::MulAdd(y, f, hn::Set(f32, 1.f));
  return hn::Mul(y, hn::BitCast(f32, hn::ShiftLeft<23>(hn::BitCast(i32, shifted))));
}

// What is added to scores: nothing, ALiBi's slope times the distance, or T5's learned value for the distance.
enum class Bias { none, slope, relative };

// The queries of a panel, a lane each; lanes past the last query repeat it.
struct PanelQueries {
  float first[widest_panel], end[widest_panel], aligned[widest_panel];
  int64_t from, to;          // keys that any of them sees
  int64_t all_from, all_to;  // keys that all of them see
  float slope;               // ALiBi's, times log2(e); 0: none
  const float* values;       // T5's of the head, by distance; null: none
  RelativeBias relative;
  int64_t first_aligned;

  PanelQueries(const Problem& p, const Visible& visible, int64_t head, int64_t i, int64_t last)
      : slope(p.slopes ? p.slopes[head] * log2_e : 0.f),
        values(p.relative.values ? p.relative.values + head * p.relative.width() : nullptr),
        relative(p.relative),
        first_aligned(visible.aligned(i)) {
    for (int64_t n = 0; n < panel; ++n) {
      const int64_t query = std::min(i + n, last);
      first[n] = float(visible.first(query));
      end[n] = float(visible.end(query));
      aligned[n] = float(visible.aligned(query));
    }
    const int64_t final = std::min(i + panel - 1, last);
    from = visible.first(i), to = visible.end(final);
    all_from = visible.first(final), all_to = visible.end(i);
  }
  bool sees_all(int64_t begin, int64_t end_) const { return begin >= all_from && end_ <= all_to; }
  Bias bias() const { return values ? Bias::relative : slope != 0 ? Bias::slope : Bias::none; }
  // The first query's place by distance from key j; the others' follow.
  HWY_INLINE int64_t by_distance(int64_t j) const { return relative.at(first_aligned - j); }
};

// One vector of the panel's queries against key j: which see it, and ALiBi's bias.
struct LaneQueries {
  V first, end, aligned, slope;
  LaneQueries(const PanelQueries& q, int64_t half)
      : first(hn::LoadU(f32, q.first + half * lanes)),
        end(hn::LoadU(f32, q.end + half * lanes)),
        aligned(hn::LoadU(f32, q.aligned + half * lanes)),
        slope(hn::Set(f32, q.slope)) {}
  HWY_INLINE auto sees(V j) const { return hn::And(hn::Ge(j, first), hn::Lt(j, end)); }
  HWY_INLINE V biased(V score, V j) const { return hn::MulAdd(slope, hn::Sub(j, aligned), score); }
};

// A tile of dropout's random bytes, [key][query], over whole blocks of 32 keys and 16 queries of the tensors.
class DropoutTile {
 public:
  static constexpr int64_t most_keys = key_tile + 64;
  static int64_t stride(int64_t queries) { return queries + 32; }
  static int64_t floats(int64_t queries) { return most_keys * stride(queries) / 4; }

  DropoutTile(float* memory, int64_t queries) : bytes_(reinterpret_cast<uint8_t*>(memory)), stride_(stride(queries)) {}

  // For query rows [i, i + queries) and key rows [j, j + keys) of the tensors.
  void fill(const Problem& p, int64_t head, int64_t i, int64_t queries, int64_t j, int64_t keys) {
    first_query_ = i / 16 * 16, first_key_ = j / 32 * 32;
    for (int64_t jb = first_key_; jb < j + keys; jb += 32)
      for (int64_t ib = first_query_; ib < i + queries; ib += 16) fill_block(p, head, ib, jb);
  }
  // Where the bytes of query rows i, i + 1, ... against key row j lie.
  const uint8_t* at(int64_t i, int64_t j) const { return bytes_ + (j - first_key_) * stride_ + (i - first_query_); }

 private:
  // 32 counters give 16 bytes each: byte 4 ((j % 32) / 8) + 2 ((i % 16) / 8) + j % 2 of counter 4 (i % 8) + (j % 8)
  // / 2.
  HWY_NOINLINE void fill_block(const Problem& p, int64_t head, int64_t ib, int64_t jb) {
    alignas(64) uint32_t words[32 * 4];
    const uint64_t block = uint64_t(ib / 16 * p.spec.heads_of_all() + p.spec.first_head + head) << 32 | uint64_t(jb);
    simd::philox_words(p.philox, block, p.site, Purpose::attention_dropout, 32, words);
    uint8_t* tile = bytes_ + (jb - first_key_) * stride_ + (ib - first_query_);
    for (int64_t j = 0; j < 32; ++j) {
      const uint8_t* from = reinterpret_cast<const uint8_t*>(words) + 16 * (j % 8 / 2) + 4 * (j / 8) + j % 2;
      for (int64_t i = 0; i < 8; ++i) {
        tile[j * stride_ + i] = from[64 * i];
        tile[j * stride_ + i + 8] = from[64 * i + 2];
      }
    }
  }

  uint8_t* bytes_;
  int64_t stride_, first_query_ = 0, first_key_ = 0;
};

// Which of one vector of queries keep a key.
HWY_INLINE auto kept(const uint8_t* bytes, int threshold) {
  const hn::Rebind<uint8_t, F> u8;
  const hn::Rebind<int32_t, F> i32;
  return hn::RebindMask(f32, hn::Gt(hn::PromoteTo(i32, hn::LoadU(u8, bytes)), hn::Set(i32, threshold - 1)));
}

}  // namespace mixtape::flash::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
