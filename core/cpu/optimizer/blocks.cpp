// The formats of weights, masters and moments in flat buffers: how a block of each is read as floats and written back.
#include "core/cpu/targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/cpu/optimizer/blocks.cpp"
#include "hwy/foreach_target.h"
//
#include <algorithm>
#include <limits>

#include "core/cpu/optimizer/blocks-inl.h"
#include "core/cpu/optimizer/codes-inl.h"
#include "core/cpu/vector_philox.h"

HWY_BEFORE_NAMESPACE();
namespace mixtape::HWY_NAMESPACE {
namespace {

// Memory for what is widened, a whole block of each, so that vectors may go beyond n.
struct Room {
  alignas(64) float w[moment_block], g[moment_block], m[moment_block], v[moment_block];
  alignas(64) uint32_t words[4 * (moment_block / 2) + 16];
};

// Numbers for `n` elements of a parameter from `first` on, of which a draw serves `per_draw`.
template <int64_t per_draw>
HWY_INLINE int64_t draw_words(const FlatBuffers& b, const UpdateRange& range, Purpose purpose, int64_t first, int64_t n,
                              uint32_t* words) {
  const int64_t draw = first / per_draw, last = (first + n - 1) / per_draw;
  philox_words(b.rounding, uint64_t(draw), range.parameter, purpose, last - draw + 1, words);
  return first - draw * per_draw;  // where the first element's are
}

// n elements of a buffer as float32: where they lie, or in `room`.
float* widened(const Tensor& t, int64_t at, int64_t n, float* room) {
  if (t.dtype() == DType::f32) return t.data<float>() + at;
  dispatch<fp16, bf16>(t.dtype(), "update", [&]<class T>() {
    const T* from = t.data<T>() + at;
    each_vector(n, [&](auto w, int64_t i) HWY_ATTR { w.store(w.load(from + i), room + i); });
  });
  return room;
}

// body(codes) with whole vectors of codes: those of the buffer, or of a copy where the last vector would end beyond n.
template <class T, class Body>
HWY_INLINE void whole_vectors(T* codes, int64_t n, bool writes, Body&& body) {
  if (n % lanes() == 0) return body(codes);
  alignas(64) T copy[moment_block] = {};
  std::copy_n(codes, n, copy);
  body(copy);
  if (writes) std::copy_n(copy, n, codes);
}

template <class Codes>
HWY_INLINE void decode_block(const Moment& moment, int64_t at, int64_t n, float* room) {
  using Code = typename Codes::Code;
  const Vec scale = set(moment.scales.data<float>()[at / moment_block]);
  whole_vectors(moment.values.data<Code>() + at, n, false, [&](const Code* codes) HWY_ATTR {
    for (int64_t i = 0; i < n; i += lanes()) store(hn::Mul(Codes::decode(codes + i), scale), room + i);
  });
}

// `shift`: which half of each element's word is the moment's.
template <int shift, class Codes>
HWY_INLINE void encode_block(const Moment& moment, int64_t at, int64_t n, float* x, const uint32_t* words) {
  using Code = typename Codes::Code;
  const FloatTag d;
  const BitsTag du;
  std::fill(x + n, x + (n + lanes() - 1) / lanes() * lanes(), 0.f);
  Vec most = hn::Zero(d);
  for (int64_t i = 0; i < n; i += lanes()) most = hn::Max(most, hn::Abs(load(x + i)));
  // What is not a normal number has no reciprocal, and is as good as 0.
  const float largest = std::min(hn::GetLane(hn::MaxOfLanes(d, most)), std::numeric_limits<float>::max());
  const bool none = largest / Codes::top < std::numeric_limits<float>::min();
  moment.scales.data<float>()[at / moment_block] = none ? 0 : largest / Codes::top;
  const Vec factor = set(none ? 0 : Codes::top / largest), top = set(Codes::top);
  whole_vectors(moment.values.data<Code>() + at, n, true, [&](Code* codes) HWY_ATTR {
    for (int64_t i = 0; i < n; i += lanes()) {
      const Vec v = load(x + i), part = hn::Min(hn::Mul(hn::Abs(v), factor), top);
      const Bits word = hn::LoadU(du, words + i);
      const Bits random = shift ? hn::ShiftRight<16>(word) : hn::And(word, hn::Set(du, 0xffffu));
      Codes::encode(hn::CopySign(part, v), random, codes + i);
    }
  });
}

float* open_moment(const Moment& moment, int64_t at, int64_t n, float* room) {
  if (!moment) return nullptr;
  switch (moment.values.dtype()) {
    case DType::i8:
      return decode_block<SignedSquare>(moment, at, n, room), room;
    case DType::u8:
      return decode_block<FourthPower>(moment, at, n, room), room;
    case DType::e4m3:
      return decode_block<Float8<e4m3, false>>(moment, at, n, room), room;
    case DType::e5m2:
      return decode_block<Float8<e5m2, true>>(moment, at, n, room), room;
    default:
      return widened(moment.values, at, n, room);
  }
}

template <int shift>
void close_moment(const Moment& moment, int64_t at, int64_t n, float* x, const uint32_t* words) {
  switch (moment.values.dtype()) {
    case DType::i8:
      return encode_block<shift, SignedSquare>(moment, at, n, x, words);
    case DType::u8:
      return encode_block<shift, FourthPower>(moment, at, n, x, words);
    case DType::e4m3:
      return encode_block<shift, Float8<e4m3, false>>(moment, at, n, x, words);
    case DType::e5m2:
      return encode_block<shift, Float8<e5m2, true>>(moment, at, n, x, words);
    case DType::bf16:
      return whole_vectors(moment.values.data<bf16>() + at, n, true, [&](bf16* to) HWY_ATTR {
        const BitsTag du;
        for (int64_t i = 0; i < n; i += lanes()) {
          const Bits word = hn::LoadU(du, words + i);
          store_by_chance(load(x + i), shift ? hn::ShiftRight<16>(word) : hn::And(word, hn::Set(du, 0xffffu)), to + i);
        }
      });
    default:;
  }
}

float* open_weights(const FlatBuffers& b, int64_t at, int64_t n, float* room) {
  if (!b.master) return widened(b.weights, at, n, room);
  if (b.master.dtype() == DType::f32) return b.master.data<float>() + at;
  whole_vectors(b.weights.data<bf16>() + at, n, false, [&](const bf16* weights) HWY_ATTR {
    whole_vectors(b.master.data<uint16_t>() + at, n, false, [&](const uint16_t* rest) HWY_ATTR {
      for (int64_t i = 0; i < n; i += lanes()) store(load_master(weights + i, rest + i), room + i);
    });
  });
  return room;
}

// Without a master: the lower and the upper half of a word are of neighbours, so that words are numbers of 16 bits.
template <class T>
HWY_INLINE void close_by_chance(T* to, int64_t n, const float* w, const uint16_t* random) {
  if constexpr (std::is_same_v<T, bf16>) {
    const BitsTag du;
    const hn::Rebind<uint16_t, FloatTag> d16;
    for (int64_t i = 0; i < n; i += lanes())
      store_by_chance(load(w + i), hn::PromoteTo(du, hn::LoadU(d16, random + i)), to + i);
  } else {
    for (int64_t i = 0; i < n; ++i) to[i] = round_stochastically<T>(w[i], random[i]);
  }
}

void close_weights(const FlatBuffers& b, const UpdateRange& range, int64_t at, int64_t n, float* w, Room& room) {
  if (b.weights.dtype() == DType::f32) return;
  dispatch<fp16, bf16>(b.weights.dtype(), "update", [&]<class T>() HWY_ATTR {
    whole_vectors(b.weights.data<T>() + at, n, true, [&](T* to) HWY_ATTR {
      if (!b.master) {
        const int64_t skip =
            draw_words<roundings_a_draw>(b, range, Purpose::rounding, range.first + at - range.offset, n, room.words);
        return close_by_chance(to, n, w, reinterpret_cast<const uint16_t*>(room.words) + skip);
      }
      each_vector(n, [&](auto part, int64_t i) HWY_ATTR { part.store(as_weight<T>(part.load(w + i)), to + i); });
    });
  });
  if (b.master && b.master.dtype() == DType::u16)
    whole_vectors(b.master.data<uint16_t>() + at, n, true, [&](uint16_t* rest) HWY_ATTR {
      for (int64_t i = 0; i < n; i += lanes()) store_remainder(load(w + i), rest + i);
    });
}

HWY_INLINE bool rounds_by_chance(const Moment& m) { return m && m.values.dtype() != DType::f32; }

}  // namespace

void update_range(const FlatBuffers& b, const UpdateRange& range, AnyRule rule) {
  Room room;
  for (int64_t done = 0; done < range.count; done += moment_block) {
    const int64_t n = std::min(moment_block, range.count - done), at = range.offset + done, of_v = at - range.v_shift;
    const Block block{.w = open_weights(b, at, n, room.w),
                      .g = widened(b.gradients, at, n, room.g),
                      .m = open_moment(b.m, at, n, room.m),
                      .v = open_moment(b.v, of_v, n, room.v),
                      .n = n};
    rule.apply(rule.rule, block);
    if (rounds_by_chance(b.m) || rounds_by_chance(b.v)) {
      const int64_t skip = draw_words<moments_a_draw>(b, range, Purpose::moments, range.first + done, n, room.words);
      if (b.m) close_moment<0>(b.m, at, n, block.m, room.words + skip);
      if (b.v) close_moment<16>(b.v, of_v, n, block.v, room.words + skip);
    }
    close_weights(b, range, at, n, block.w, room);
  }
}

}  // namespace mixtape::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
