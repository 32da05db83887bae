// A random order of n things that needs no table: a Feistel network over the smallest even power of two that holds n,
// walked until it lands below n (Black and Rogaway, "Ciphers with arbitrary finite domains", 2002).
//
// Any element of the order costs some tens of nanoseconds, so the order of a billion documents takes no memory, and the
// order of every epoch is a pure function of (seed, site, epoch).
#pragma once

#include <array>
#include <cstdint>

#include "core/base/philox.h"

namespace mixtape {

class Permutation {
 public:
  // `site` keeps apart the orders of several sources under one seed.
  Permutation(uint64_t size, uint64_t seed, uint32_t site, uint64_t epoch) : size_(size) {
    // At least 2^8: with fewer bits eight rounds would reach only few of the orders of a small n.
    while (half_ < 32 && (uint64_t(1) << (2 * half_)) < size) ++half_;
    const PhiloxKey key = philox_key(seed, epoch);
    for (uint32_t round = 0; round < keys_.size(); ++round) {
      const auto bits = philox(key, round, site, Purpose::shuffle);
      keys_[round] = uint64_t(bits[0]) << 32 | bits[1];
    }
  }

  // A bijection of [0, size).
  uint64_t operator()(uint64_t index) const {
    do index = shuffle_once(index);
    while (index >= size_);
    return index;
  }

 private:
  uint64_t shuffle_once(uint64_t value) const {
    const uint64_t mask = (uint64_t(1) << half_) - 1;
    uint64_t left = value >> half_, right = value & mask;
    for (const uint64_t key : keys_) {
      const uint64_t mixed = left ^ (mix64(right ^ key) & mask);
      left = right;
      right = mixed;
    }
    return left << half_ | right;
  }

  uint64_t size_;
  unsigned half_ = 4;
  std::array<uint64_t, 8> keys_{};
};

}  // namespace mixtape
