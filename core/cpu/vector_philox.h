// Philox 4x32-10 (core/base/philox.h) for consecutive counters at once. Include after hwy/foreach_target.h.
#if defined(MIXTAPE_CPU_VECTOR_PHILOX_H) == defined(HWY_TARGET_TOGGLE)
#ifdef MIXTAPE_CPU_VECTOR_PHILOX_H
#undef MIXTAPE_CPU_VECTOR_PHILOX_H
#else
#define MIXTAPE_CPU_VECTOR_PHILOX_H
#endif

#include "core/base/philox.h"
#include "core/cpu/targets.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace mixtape::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// words[4 i ...] = philox(key, index + i, site, purpose) for i < count: 16 bytes a counter, little-endian.
inline void philox_words(PhiloxKey key, uint64_t index, uint32_t site, Purpose purpose, int64_t count,
                         uint32_t* words) {
  int64_t i = 0;
#if HWY_TARGET != HWY_SCALAR
  // A 64-bit lane holds one counter's word; the upper half is what is left of a product and is never read, since
  // MulEven takes the lower halves only.
  const hn::ScalableTag<uint64_t> d;
  const hn::Repartition<uint32_t, decltype(d)> d32;
  using V = hn::Vec<decltype(d)>;
  const V m0 = hn::Set(d, 0xD2511F53u), m1 = hn::Set(d, 0xCD9E8D57u);
  const V low_half = hn::Set(d, 0xffffffffu);
  const auto times = [&](V a, V b) HWY_ATTR { return hn::MulEven(hn::BitCast(d32, a), hn::BitCast(d32, b)); };
  uint64_t keys[10][2];
  for (int round = 0; round < 10; ++round) {
    keys[round][0] = key.k0 + uint32_t(round) * 0x9E3779B9u;
    keys[round][1] = key.k1 + uint32_t(round) * 0xBB67AE85u;
  }
  const int64_t step = int64_t(hn::Lanes(d));
  for (; i + step <= count; i += step) {
    const V counter = hn::Iota(d, index + uint64_t(i));
    V c0 = counter, c1 = hn::ShiftRight<32>(counter), c2 = hn::Set(d, site), c3 = hn::Set(d, uint32_t(purpose));
    for (int round = 0; round < 10; ++round) {
      const V p0 = times(m0, c0), p1 = times(m1, c2);
      c0 = hn::Xor(hn::Xor(hn::ShiftRight<32>(p1), c1), hn::Set(d, keys[round][0]));
      c2 = hn::Xor(hn::Xor(hn::ShiftRight<32>(p0), c3), hn::Set(d, keys[round][1]));
      c1 = p1, c3 = p0;
    }
    const V low = hn::Or(hn::And(c0, low_half), hn::ShiftLeft<32>(c1));
    const V high = hn::Or(hn::And(c2, low_half), hn::ShiftLeft<32>(c3));
    hn::StoreInterleaved2(low, high, d, reinterpret_cast<uint64_t*>(words + 4 * i));
  }
#endif
  for (uint32_t* out = words + 4 * i; i < count; ++i, out += 4) {
    const auto w = philox(key, index + uint64_t(i), site, purpose);
    std::copy(w.begin(), w.end(), out);
  }
}

}  // namespace mixtape::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
