// Dropout by counter: the mask is made where it is used, from random bytes that live in the first-level cache.
#include "core/cpu/targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/cpu/dropout.cpp"
#include "hwy/foreach_target.h"
//
#include "core/cpu/backend.h"
#include "core/cpu/rows.h"
#include "core/cpu/simd.h"
#include "core/cpu/vector_philox.h"

HWY_BEFORE_NAMESPACE();
namespace mixtape::HWY_NAMESPACE {
namespace {

constexpr int64_t per_counter = 16;  // bytes, and so elements
constexpr int64_t batch = 1024;      // elements whose bytes are made at once

// `first` is the index in the whole tensor of element 0 of x and y.
template <class T>
void dropout_span(const Dropout& a, const T* x, T* y, int64_t first, int64_t n) {
  const FloatTag d;
  const hn::RebindToSigned<FloatTag> di;
  const hn::Rebind<uint8_t, FloatTag> d8;
  const bool accumulate = a.y.accumulates();
  const auto threshold = hn::Set(di, a.threshold);
  const Vec scale = set(float(1 / (1 - a.threshold / 256.0)));
  // The vectors' last load of bytes may start in the last counter's 16 and end behind them.
  alignas(64) uint32_t words[batch / 4 + per_counter / 4 + 16] = {};
  const uint8_t* bytes = reinterpret_cast<const uint8_t*>(words);

  for (int64_t begin = 0; begin < n; begin += batch) {
    const int64_t count = std::min(batch, n - begin);
    const int64_t element = first + begin, skip = element % per_counter;
    philox_words(a.state->philox, uint64_t(element / per_counter), a.site, Purpose::dropout,
                 (skip + count + per_counter - 1) / per_counter, words);
    const uint8_t* random = bytes + skip;
    const T* from = x + begin;
    T* to = y + begin;
    each_vector(count, [&](auto w, int64_t i) HWY_ATTR {
      const auto byte = hn::PromoteTo(di, hn::LoadU(d8, random + i));
      const auto dropped = hn::RebindMask(d, hn::Lt(byte, threshold));
      w.put(hn::IfThenZeroElse(dropped, hn::Mul(w.load(from + i), scale)), to + i, accumulate);
    });
  }
}

}  // namespace

void dropout(const Dropout& a) {
  const int64_t cols = a.x.cols();
  dispatch<float, fp16, bf16>(a.x.dtype(), "dropout", [&]<class T>() {
    const Rows<const T> x(a.x);
    const Rows<T> y(a.y.tensor);
    parallel_pieces({a.x, a.y.tensor}, [&](int64_t r, int64_t c, int64_t n) {
      dropout_span<T>(a, x[r] + c, y[r] + c, a.first_element + r * cols + c, n);
    });
  });
}

}  // namespace mixtape::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mixtape {

HWY_EXPORT(dropout);

void CpuDropout::dropout(const Dropout& a) {
  if (backend_.planning() || !a.y) return;
  HWY_DYNAMIC_DISPATCH(dropout)(a);
}

}  // namespace mixtape
#endif
