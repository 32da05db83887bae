// Layer norm and RMS norm. A row stays in the first-level cache while its mean, its variance and its result are
// computed, so the kernels move each tensor once and are bound by memory.
#include "core/cpu/targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/cpu/norm.cpp"
#include "hwy/foreach_target.h"
//
#include <cmath>

#include "core/cpu/backend.h"
#include "core/cpu/rows.h"
#include "core/cpu/simd.h"

#ifndef MIXTAPE_CPU_NORM_ONCE
#define MIXTAPE_CPU_NORM_ONCE
namespace mixtape {
namespace {

// Weight gradients are summed per block of rows, then over blocks in order: the number of blocks depends on the shape
// alone, and so do the bits.
constexpr int64_t most_blocks = 32, least_block_rows = 16;

struct RowBlocks {
  int64_t rows, size, count;
  explicit RowBlocks(int64_t n)
      : rows(n), size(std::max(least_block_rows, (n + most_blocks - 1) / most_blocks)), count((n + size - 1) / size) {}
};

}  // namespace
}  // namespace mixtape
#endif

HWY_BEFORE_NAMESPACE();
namespace mixtape::HWY_NAMESPACE {
namespace {

// The variance is taken around the mean in a second pass: E[x^2] - E[x]^2 cancels.
template <class T>
void norm_rows(const Norm& a, int64_t begin, int64_t end) {
  const int64_t n = a.x.cols();
  const Rows<const T> x(a.x), branch(a.branch);
  const Rows<T> y(a.y), h(a.h);
  const T* weight = a.weight.data<T>();
  const T* bias = a.bias ? a.bias.data<T>() : nullptr;
  float* means = a.mean ? a.mean.data<float>() : nullptr;
  float* invs = a.inv ? a.inv.data<float>() : nullptr;

  for (int64_t r = begin; r < end; ++r) {
    const T* row = x[r];
    if (branch) {
      const T *xr = x[r], *br = branch[r];
      T* hr = h[r];
      each_vector(n, [&](auto w, int64_t i) HWY_ATTR { w.store(hn::Add(w.load(xr + i), w.load(br + i)), hr + i); });
      row = hr;
    }
    float mean = 0;
    if (a.center) mean = sum_over(n, [&](auto w, int64_t i) HWY_ATTR { return w.load(row + i); }) / float(n);
    const Vec vmean = set(mean);
    const float squares = sum_over(n, [&](auto w, int64_t i) HWY_ATTR {
      const Vec c = hn::Sub(w.load(row + i), vmean);
      return hn::Mul(c, c);
    });
    const float inv = 1 / std::sqrt(squares / float(n) + a.eps);
    if (means) means[r] = mean;
    if (invs) invs[r] = inv;

    const Vec vinv = set(inv);
    T* yr = y[r];
    each_vector(n, [&](auto w, int64_t i) HWY_ATTR {
      const Vec normed = hn::Mul(hn::Sub(w.load(row + i), vmean), vinv);
      const Vec shift = bias ? w.load(bias + i) : set(0);
      w.store(hn::MulAdd(normed, w.load(weight + i), shift), yr + i);
    });
  }
}

// With n = (h - mean) inv and g = dy weight:  dx = dh + inv (g - mean(g) - n mean(g n)), without mean(g) for RMS norm.
// `dw` and `db` are this block's sums of dy n and dy, or null.
template <class T>
void norm_backward_rows(const NormBackward& a, int64_t begin, int64_t end, float* dw, float* db) {
  const int64_t n = a.h.cols();
  const Rows<const T> dy(a.dy), dh(a.dh), h(a.h);
  const Rows<T> dx(a.dx ? a.dx.tensor : Tensor{});
  const T* weight = a.weight.data<T>();
  const float* means = a.center ? a.mean.data<float>() : nullptr;
  const float* invs = a.inv.data<float>();
  const bool accumulate = a.dx.accumulates();

  for (int64_t r = begin; r < end; ++r) {
    const T *dyr = dy[r], *hr = h[r];
    const Vec mean = set(means ? means[r] : 0), inv = set(invs[r]);
    const auto normed = [&](auto w, int64_t i) HWY_ATTR { return hn::Mul(hn::Sub(w.load(hr + i), mean), inv); };
    float sum_g = 0;
    if (a.center && dx)
      sum_g = sum_over(n, [&](auto w, int64_t i) HWY_ATTR { return hn::Mul(w.load(dyr + i), w.load(weight + i)); });
    const float sum_gn = sum_over(n, [&](auto w, int64_t i) HWY_ATTR {
      const Vec d = w.load(dyr + i);
      const Vec d_normed = hn::Mul(d, normed(w, i));
      if (dw) w.put(d_normed, dw + i, true);
      if (db) w.put(d, db + i, true);
      return hn::Mul(d_normed, w.load(weight + i));
    });
    if (!dx) continue;
    const Vec mean_g = set(sum_g / float(n)), mean_gn = set(sum_gn / float(n));
    const T* dhr = dh ? dh[r] : nullptr;
    T* dxr = dx[r];
    each_vector(n, [&](auto w, int64_t i) HWY_ATTR {
      const Vec g = hn::MulSub(w.load(dyr + i), w.load(weight + i), mean_g);
      const Vec through = hn::Mul(inv, hn::NegMulAdd(normed(w, i), mean_gn, g));
      w.put(dhr ? hn::Add(w.load(dhr + i), through) : through, dxr + i, accumulate);
    });
  }
}

// to = sum over blocks of parts[block, :].
template <class G>
void sum_blocks(const Grad& to, const float* parts, int64_t blocks, int64_t begin, int64_t end) {
  const int64_t n = to.tensor.count();
  G* out = to.tensor.data<G>();
  each_vector(end - begin, [&](auto w, int64_t j) HWY_ATTR {
    const int64_t i = begin + j;
    Vec sum = set(0);
    for (int64_t b = 0; b < blocks; ++b) sum = hn::Add(sum, w.load(parts + b * n + i));
    w.put(sum, out + i, to.accumulates());
  });
}

void deliver(const Grad& to, const float* parts, int64_t blocks) {
  if (!to) return;
  // Whole cache lines a thread.
  constexpr int64_t line = 64;
  const int64_t n = to.tensor.count();
  parallel_for((n + line - 1) / line, std::max<int64_t>(1, elements_per_thread / (line * std::max<int64_t>(blocks, 1))),
               [&](int64_t begin, int64_t end) {
                 dispatch<float, fp16, bf16>(to.tensor.dtype(), "norm_backward", [&]<class G>() {
                   sum_blocks<G>(to, parts, blocks, begin * line, std::min(n, end * line));
                 });
               });
}

}  // namespace

void norm(const Norm& a) {
  dispatch<float, fp16, bf16>(a.x.dtype(), "norm", [&]<class T>() {
    parallel_for(a.x.rows(), row_grain(a.x.cols()), [&](int64_t begin, int64_t end) { norm_rows<T>(a, begin, end); });
  });
}

// parts: [2, blocks, cols], for the sums of dweight and dbias.
void norm_backward(const NormBackward& a, float* parts) {
  const RowBlocks blocks(a.h.rows());
  const int64_t n = a.h.cols();
  float* bias_parts = parts + blocks.count * n;
  dispatch<float, fp16, bf16>(a.h.dtype(), "norm_backward", [&]<class T>() {
    parallel_for(blocks.count, (row_grain(n) + blocks.size - 1) / blocks.size, [&](int64_t first, int64_t last) {
      for (int64_t b = first; b < last; ++b) {
        float* dw = a.dweight ? parts + b * n : nullptr;
        float* db = a.dbias ? bias_parts + b * n : nullptr;
        if (dw) std::fill(dw, dw + n, 0.f);
        if (db) std::fill(db, db + n, 0.f);
        norm_backward_rows<T>(a, b * blocks.size, std::min(blocks.rows, (b + 1) * blocks.size), dw, db);
      }
    });
  });
  deliver(a.dweight, parts, blocks.count);
  deliver(a.dbias, bias_parts, blocks.count);
}

}  // namespace mixtape::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mixtape {

HWY_EXPORT(norm);
HWY_EXPORT(norm_backward);

void CpuNorm::norm(const Norm& a) {
  if (backend_.planning()) return;
  HWY_DYNAMIC_DISPATCH(norm)(a);
}

void CpuNorm::norm_backward(const NormBackward& a) {
  const Tensor parts = backend_.workspace({2, RowBlocks(a.h.rows()).count, a.h.cols()}, DType::f32);
  if (backend_.planning()) return;
  HWY_DYNAMIC_DISPATCH(norm_backward)(a, parts.data<float>());
}

}  // namespace mixtape
#endif
