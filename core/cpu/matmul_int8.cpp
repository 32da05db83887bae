// Linear layers of int8 codes. A row of x becomes codes of 16 bits; products of two pairs are added in int32 by one
// instruction, which is exact on every CPU (that of 8 bits saturates where there is no VNNI). Weights are widened in
// registers, so that memory gives a byte for each, once for a block of rows.
#include "core/cpu/targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/cpu/matmul_int8.cpp"
#include "hwy/foreach_target.h"
//
#include <bit>
#include <cmath>

#include "core/base/code_scale.h"
#include "core/cpu/backend.h"
#include "core/cpu/gemm_epilogue.h"
#include "core/cpu/simd.h"

#ifndef MIXTAPE_CPU_MATMUL_INT8_CPP
#define MIXTAPE_CPU_MATMUL_INT8_CPP
namespace mixtape {

// Rows of x that are coded at once, those of them that a task takes, and those whose sums it holds; outputs of a task.
constexpr int64_t int8_block = 1024, int8_group = 128, int8_held = 16, int8_chunk = 64;
// A coded row is as long as a whole number of the widest vectors, with zeros at its end.
inline int64_t int8_row(int64_t in) { return (in + 31) / 32 * 32; }

// Rows of x as codes and what they are to be multiplied by: of rows [row, row + rows) of x.
struct CodedRows {
  int16_t* codes = nullptr;
  float* scales = nullptr;
  int64_t row = 0, rows = 0;
};

}  // namespace mixtape
#endif

HWY_BEFORE_NAMESPACE();
namespace mixtape::HWY_NAMESPACE {
namespace {

using ShortTag = hn::ScalableTag<int16_t>;
using IntTag = hn::Repartition<int32_t, ShortTag>;

// Returns the scale: NaN if a number is not finite, so that the row's results are NaN.
template <class T>
float code_row(const T* x, int16_t* codes, int64_t n) {
  const hn::Rebind<int16_t, FloatTag> d16;
  const float largest = std::bit_cast<float>(largest_bits(x, n));
  const float scale = code_scale(DType::i8, largest);
  const Vec by = set(scale == 0 ? 0 : 1 / scale);
  std::fill(codes + n, codes + int8_row(n), int16_t(0));
  each_vector(n, [&](auto w, int64_t i) HWY_ATTR {
    // Beyond the end of the row zeros, which are codes of zeros.
    const Vec v = hn::Mul(w.load(x + i), by);
    hn::StoreU(hn::DemoteTo(d16, hn::NearestInt(hn::IfThenZeroElse(hn::IsNaN(v), v))), d16, codes + i);
  });
  return std::isfinite(largest) ? scale : NAN;
}

// A sum in int32, of which an instruction set may keep two.
struct Sum {
  hn::Vec<IntTag> a, b;
  HWY_INLINE void add(hn::Vec<ShortTag> x, hn::Vec<ShortTag> y) {
    a = hn::ReorderWidenMulAccumulate(IntTag(), x, y, a, b);
  }
  HWY_INLINE float number() const { return float(hn::GetLane(hn::SumOfLanes(IntTag(), hn::Add(a, b)))); }
};

// Two weight rows against R rows of x: 2 R chains hide the latency of an addition.
template <int R>
void two_outputs(const CodedRows& x, int64_t row, const int8_t* const (&w)[2], int64_t in, float (&sums)[2][R]) {
  const ShortTag d;
  const hn::Rebind<int8_t, ShortTag> d8;
  const int64_t step = int64_t(hn::Lanes(d)), stride = int8_row(in);
  const int16_t* const codes = x.codes + row * stride;
  Sum s[2][R];
  for (int r = 0; r < R; ++r) s[0][r].a = s[0][r].b = s[1][r].a = s[1][r].b = hn::Zero(IntTag());
  const auto add = [&](hn::Vec<ShortTag> w0, hn::Vec<ShortTag> w1, int64_t i) HWY_ATTR {
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      const auto v = hn::LoadU(d, codes + r * stride + i);
      s[0][r].add(w0, v);
      s[1][r].add(w1, v);
    }
  };
  int64_t i = 0;
  for (; i + step <= in; i += step)
    add(hn::PromoteTo(d, hn::LoadU(d8, w[0] + i)), hn::PromoteTo(d, hn::LoadU(d8, w[1] + i)), i);
  if (i < in) {
    HWY_ALIGN int8_t rest[2][HWY_MAX_BYTES] = {};
    for (int o = 0; o < 2; ++o) std::memcpy(rest[o], w[o] + i, size_t(in - i));
    add(hn::PromoteTo(d, hn::LoadU(d8, rest[0])), hn::PromoteTo(d, hn::LoadU(d8, rest[1])), i);
  }
  for (int o = 0; o < 2; ++o)
    for (int r = 0; r < R; ++r) sums[o][r] = s[o][r].number();
}

template <int R>
void scaled_sums(const LinearInt8& a, const CodedRows& x, int64_t row, int64_t output, int64_t outputs, float* to) {
  const float* const scale = a.scale.data<float>();
  const Rows<const int8_t> weight(a.codes);
  for (int64_t o = 0; o < outputs; o += 2) {
    const int64_t second = std::min(o + 1, outputs - 1);
    float sums[2][R];
    two_outputs<R>(x, row, {weight[output + o], weight[output + second]}, a.x.cols(), sums);
    for (int r = 0; r < R; ++r) {
      to[r * int8_chunk + o] = sums[0][r] * x.scales[row + r] * scale[output + o];
      to[r * int8_chunk + second] = sums[1][r] * x.scales[row + r] * scale[output + second];
    }
  }
}

}  // namespace

void code_rows(const LinearInt8& a, const CodedRows& to) {
  const int64_t in = a.x.cols();
  dispatch<float, fp16, bf16>(a.x.dtype(), "linear_int8", [&]<class T>() {
    const Rows<const T> x(a.x);
    parallel_for(to.rows, row_grain(in), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) to.scales[r] = code_row(x[to.row + r], to.codes + r * int8_row(in), in);
    });
  });
}

// Results [row, row + rows) x [output, output + outputs) of the coded rows.
void int8_tile(const LinearInt8& a, const CodedRows& x, int64_t row, int64_t rows, int64_t output, int64_t outputs) {
  float memory[int8_held * int8_chunk];
  Block sums;
  sums.data = reinterpret_cast<std::byte*>(memory);
  sums.stride = int8_chunk;
  for (int64_t first = row; first < row + rows; first += int8_held) {
    const int64_t held = std::min(int8_held, row + rows - first);
    int64_t r = 0;
    for (; r + 4 <= held; r += 4) scaled_sums<4>(a, x, first + r, output, outputs, memory + r * int8_chunk);
    for (; r < held; ++r) scaled_sums<1>(a, x, first + r, output, outputs, memory + r * int8_chunk);
    bias_activation({.y = Block(a.y).at(x.row + first, output),
                     .sums = sums,
                     .bias = a.bias ? a.bias.raw() + output * size_of(a.bias.dtype()) : nullptr,
                     .activation = a.activation,
                     .rows = held,
                     .cols = outputs});
  }
}

}  // namespace mixtape::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mixtape {

HWY_EXPORT(code_rows);
HWY_EXPORT(int8_tile);

void CpuMatmul::linear_int8(const LinearInt8& a) {
  const int64_t in = a.x.cols(), out = a.codes.rows(), block = std::min(a.x.rows(), int8_block);
  const Tensor codes = backend_.workspace({block, int8_row(in)}, DType::u16);
  const Tensor scales = backend_.workspace({block}, DType::f32);
  if (backend_.planning()) return;
  CodedRows x{reinterpret_cast<int16_t*>(codes.raw()), scales.data<float>()};
  for (; x.row < a.x.rows(); x.row += block) {
    x.rows = std::min(block, a.x.rows() - x.row);
    HWY_DYNAMIC_DISPATCH(code_rows)(a, x);
    const int64_t chunks = (out + int8_chunk - 1) / int8_chunk, groups = (x.rows + int8_group - 1) / int8_group;
    const int64_t grain = std::max<int64_t>(1, elements_per_thread / (int8_chunk * std::max<int64_t>(in, 1)));
    // A thread's tasks share their weights as long as there are rows.
    parallel_for(chunks * groups, grain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t output = i / groups * int8_chunk, row = i % groups * int8_group;
        HWY_DYNAMIC_DISPATCH(int8_tile)
        (a, x, row, std::min(int8_group, x.rows - row), output, std::min(int8_chunk, out - output));
      }
    });
  }
}

}  // namespace mixtape
#endif
