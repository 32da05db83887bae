// The random numbers of one sample, in the order in which its objective asks for them.
//
// They are a function of (seed, sample index) alone, whatever the rank, the thread or the number of samples drawn
// before. As the index of a sample grows from epoch to epoch, so do its numbers change.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <utility>

#include "core/base/philox.h"

namespace mixtape {

class Draws {
 public:
  Draws(uint64_t seed, uint64_t sample) : key_(philox_key(seed, sample)) {}

  uint32_t bits() {
    if (count_ % 4 == 0) held_ = philox(key_, count_ / 4, 0, Purpose::masking);
    return held_[count_++ % 4];
  }

  // In [0, 1), 32 bits.
  double uniform() { return bits() * 0x1p-32; }

  // In [0, n), each equally likely; n > 0. Source: Lemire, "Fast random integer generation in an interval", 2019.
  uint32_t below(uint32_t n) {
    uint64_t product = uint64_t(bits()) * n;
    if (uint32_t(product) < n)
      for (const uint32_t least = -n % n; uint32_t(product) < least;) product = uint64_t(bits()) * n;
    return uint32_t(product >> 32);
  }

  template <class T>
  void shuffle(std::span<T> items) {  // Fisher and Yates
    for (size_t left = items.size(); left > 1; --left) std::swap(items[left - 1], items[below(uint32_t(left))]);
  }

 private:
  PhiloxKey key_;
  uint64_t count_ = 0;
  std::array<uint32_t, 4> held_{};
};

}  // namespace mixtape
