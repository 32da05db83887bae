// Small matrix products, and moving rows between tensors and packed float32 tiles. Include after foreach_target.h.
//
// There is one product: C[m][0..P) over k of A(m, k) * B[k][0..P), with P two vectors wide. A panel of B is read in
// vectors and an element of A is broadcast; so A may lie either way (m down or m across), and nothing but the queries
// is ever transposed. An element of C is one chain of multiply-adds in the order of k, however the rows are blocked.
#if defined(MIXTAPE_CPU_ATTENTION_TILES_H) == defined(HWY_TARGET_TOGGLE)
#ifdef MIXTAPE_CPU_ATTENTION_TILES_H
#undef MIXTAPE_CPU_ATTENTION_TILES_H
#else
#define MIXTAPE_CPU_ATTENTION_TILES_H
#endif

#include <cstring>

#include "core/base/dispatch.h"
#include "core/cpu/attention/problem.h"
#include "core/cpu/simd.h"
#include "hwy/cache_control.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace mixtape::flash::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
namespace simd = mixtape::HWY_NAMESPACE;

using F = simd::FloatTag;
using V = hn::Vec<F>;
constexpr F f32{};
constexpr int64_t lanes = hn::MaxLanes(F());
constexpr int64_t panel = 2 * lanes;
// Rows of C in registers, as two vectors each, beside B's two vectors and A's broadcast.
constexpr int block_rows = HWY_TARGET <= HWY_AVX3 ? 8 : 6;

enum class Lies { down, across };              // A(m, k) is a[m * lda + k], or a[k * lda + m]
enum class Into { replace, add, add_scaled };  // C = AB; C += AB; C = C * scale + AB, a scale for each column

struct Operand {
  const float* data;
  int64_t stride;
};

template <int M, Lies lies, Into into>
HWY_INLINE void multiply_block(Operand a, Operand b, int64_t K, float* c, int64_t ldc, const float* scale) {
  V left[M], right[M];
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m) {
    if constexpr (into == Into::replace) {
      left[m] = right[m] = hn::Zero(f32);
    } else {
      left[m] = hn::LoadU(f32, c + m * ldc);
      right[m] = hn::LoadU(f32, c + m * ldc + lanes);
    }
    if constexpr (into == Into::add_scaled) {
      left[m] = hn::Mul(left[m], hn::LoadU(f32, scale));
      right[m] = hn::Mul(right[m], hn::LoadU(f32, scale + lanes));
    }
  }
  const float* x = a.data;
  const float* y = b.data;
  for (int64_t k = 0; k < K; ++k) {
    const V l = hn::LoadU(f32, y), r = hn::LoadU(f32, y + lanes);
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
      const V s = hn::Set(f32, lies == Lies::down ? x[m * a.stride] : x[m]);
      left[m] = hn::MulAdd(s, l, left[m]);
      right[m] = hn::MulAdd(s, r, right[m]);
    }
    x += lies == Lies::down ? 1 : a.stride;
    y += b.stride;
  }
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m) {
    hn::StoreU(left[m], f32, c + m * ldc);
    hn::StoreU(right[m], f32, c + m * ldc + lanes);
  }
}

template <int M, Lies lies, Into into>
HWY_INLINE void multiply_rest(int64_t m, Operand a, Operand b, int64_t K, float* c, int64_t ldc, const float* scale) {
  if (m == M) return multiply_block<M, lies, into>(a, b, K, c, ldc, scale);
  if constexpr (M > 1) multiply_rest<M - 1, lies, into>(m, a, b, K, c, ldc, scale);
}

template <Lies lies, Into into>
HWY_NOINLINE void multiply(int64_t m, Operand a, Operand b, int64_t K, float* c, int64_t ldc,
                           const float* scale = nullptr) {
  constexpr int M = block_rows;
  for (; m >= M; m -= M, c += M * ldc, a.data += lies == Lies::down ? M * a.stride : M)
    multiply_block<M, lies, into>(a, b, K, c, ldc, scale);
  if (m > 0) multiply_rest<M - 1, lies, into>(m, a, b, K, c, ldc, scale);
}

// C over all columns of B, which lie side by side.
template <Lies lies, Into into>
HWY_INLINE void multiply_wide(int64_t m, Operand a, Operand b, int64_t K, float* c, int64_t ldc, int64_t columns) {
  for (int64_t n = 0; n < columns; n += panel) multiply<lies, into>(m, a, {b.data + n, b.stride}, K, c + n, ldc);
}

// One row of n elements as float32, followed by zeros up to `padded`.
template <class T>
HWY_INLINE void unpack_row(const T* from, int64_t n, float* to, int64_t padded) {
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) hn::StoreU(simd::load(from + i), f32, to + i);
  for (; i < n; ++i) to[i] = float(from[i]);
  for (; i < padded; ++i) to[i] = 0;
}

template <class T>
HWY_INLINE void store_row(const float* from, int64_t n, float factor, T* to, bool add) {
  const V f = hn::Set(f32, factor);
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    V x = hn::Mul(hn::LoadU(f32, from + i), f);
    if (add) x = hn::Add(x, simd::load(to + i));
    simd::store(x, to + i);
  }
  for (; i < n; ++i) to[i] = T(from[i] * factor + (add ? float(to[i]) : 0.f));
}

// Rows of a head lie thousands of bytes apart, beyond what the hardware foresees.
HWY_INLINE void prefetch_row(const Rows& rows, int64_t row, int64_t col, int64_t n) {
  const std::byte* at = rows.at(row, col);
  for (int64_t b = 0; b < n * size_of(rows.type); b += 64) hwy::Prefetch(at + b);
}
constexpr int64_t rows_ahead = 8;

// Rows [row, row + count) of one head into a tile of `padded` columns.
inline void pack(const Rows& from, int64_t row, int64_t count, int64_t col, int64_t n, float* to, int64_t padded) {
  dispatch<float, fp16, bf16>(from.type, "attention", [&]<class T>() HWY_ATTR {
    for (int64_t r = 0; r < count; ++r) {
      if (r + rows_ahead < count) prefetch_row(from, row + r + rows_ahead, col, n);
      unpack_row(reinterpret_cast<const T*>(from.at(row + r, col)), n, to + r * padded, padded);
    }
  });
}

// And back, times `factor`: stored, or added to what is there.
inline void unpack(const float* from, int64_t padded, int64_t count, int64_t n, float factor, const Rows& to,
                   int64_t row, int64_t col, bool add) {
  dispatch<float, fp16, bf16>(to.type, "attention", [&]<class T>() HWY_ATTR {
    for (int64_t r = 0; r < count; ++r) {
      if (r + rows_ahead < count) prefetch_row(to, row + r + rows_ahead, col, n);
      store_row(from + r * padded, n, factor, reinterpret_cast<T*>(to.at(row + r, col)), add);
    }
  });
}

// to[c][r] = from[r][c] * factor; rows and columns are multiples of 4.
inline void transpose(const float* from, int64_t from_stride, int64_t rows, int64_t cols, float factor, float* to,
                      int64_t to_stride) {
#if HWY_TARGET == HWY_SCALAR
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < cols; ++c) to[c * to_stride + r] = from[r * from_stride + c] * factor;
#else
  const hn::FixedTag<float, 4> d;
  const hn::FixedTag<double, 2> pairs;
  const auto f = hn::Set(d, factor);
  const auto low = [&](auto a, auto b) HWY_ATTR {
    return hn::BitCast(d, hn::InterleaveLower(pairs, hn::BitCast(pairs, a), hn::BitCast(pairs, b)));
  };
  const auto high = [&](auto a, auto b) HWY_ATTR {
    return hn::BitCast(d, hn::InterleaveUpper(pairs, hn::BitCast(pairs, a), hn::BitCast(pairs, b)));
  };
  for (int64_t r = 0; r < rows; r += 4)
    for (int64_t c = 0; c < cols; c += 4) {
      const float* p = from + r * from_stride + c;
      const auto x0 = hn::Mul(hn::LoadU(d, p), f), x1 = hn::Mul(hn::LoadU(d, p + from_stride), f),
                 x2 = hn::Mul(hn::LoadU(d, p + 2 * from_stride), f), x3 = hn::Mul(hn::LoadU(d, p + 3 * from_stride), f);
      const auto a = hn::InterleaveLower(d, x0, x1), b = hn::InterleaveUpper(d, x0, x1),
                 e = hn::InterleaveLower(d, x2, x3), g = hn::InterleaveUpper(d, x2, x3);
      float* t = to + c * to_stride + r;
      hn::StoreU(low(a, e), d, t);
      hn::StoreU(high(a, e), d, t + to_stride);
      hn::StoreU(low(b, g), d, t + 2 * to_stride);
      hn::StoreU(high(b, g), d, t + 3 * to_stride);
    }
#endif
}

inline void zero(float* p, int64_t n) { std::memset(p, 0, size_t(n) * sizeof(float)); }

// Hands out pieces of a thread's scratch, each on a cache line.
class Pieces {
 public:
  explicit Pieces(float* at) : at_(at) {}
  float* take(int64_t n) {
    float* piece = at_;
    at_ += round_up(n, 16);
    return piece;
  }

 private:
  float* at_;
};

}  // namespace mixtape::flash::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
