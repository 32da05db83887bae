// Philox 4x32-10: random numbers as a pure function of a key and a counter.
//
// Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
// Nothing is stored and nothing depends on threads, devices or the order of evaluation: the same (seed, purpose,
// step, micro-batch, site, element) gives the same bits in forward, in recomputation and after a resume.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>

namespace mixtape {

// What the numbers are for: uses that share a seed must not share numbers.
enum class Purpose : uint32_t {
  init = 1,
  dropout = 2,
  attention_dropout = 3,
  shuffle = 4,
  sampling = 5,
  rounding = 6,
  masking = 7,
  test = 8,
  moments = 9
};

struct PhiloxKey {
  uint32_t k0 = 0, k1 = 0;
};

// A bijective mixer (splitmix64's finaliser), to spread small integers over a key.
constexpr uint64_t mix64(uint64_t x) {
  x += 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

// The key of one micro-batch of one attempted step; for uses outside the step both are 0.
constexpr PhiloxKey philox_key(uint64_t seed, uint64_t attempt = 0, uint64_t micro_batch = 0) {
  const uint64_t k = mix64(mix64(mix64(seed) ^ attempt) ^ micro_batch);
  return {uint32_t(k), uint32_t(k >> 32)};
}

// Four independent 32-bit numbers for one counter: (index, site, purpose).
constexpr std::array<uint32_t, 4> philox(PhiloxKey key, uint64_t index, uint32_t site, Purpose purpose) {
  uint32_t c0 = uint32_t(index), c1 = uint32_t(index >> 32), c2 = site, c3 = uint32_t(purpose);
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t(0xD2511F53u) * c0, p1 = uint64_t(0xCD9E8D57u) * c2;
    const uint32_t n0 = uint32_t(p1 >> 32) ^ c1 ^ key.k0, n2 = uint32_t(p0 >> 32) ^ c3 ^ key.k1;
    c1 = uint32_t(p1), c3 = uint32_t(p0), c0 = n0, c2 = n2;
    key.k0 += 0x9E3779B9u, key.k1 += 0xBB67AE85u;
  }
  return {c0, c1, c2, c3};
}

// In [0, 1), 24 bits.
constexpr float uniform(uint32_t bits) { return float(bits >> 8) * 0x1p-24f; }

// A standard normal from two of the numbers (Box-Muller).
inline float normal(uint32_t a, uint32_t b) {
  const double u = (a + 1.0) * 0x1p-32, v = b * 0x1p-32;
  return float(std::sqrt(-2.0 * std::log(u)) * std::cos(6.283185307179586 * v));
}

}  // namespace mixtape
