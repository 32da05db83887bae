// Linear layers of int8 codes (core/ops/matmul.h): rows of x become codes with a scale each, codes are multiplied and
// added in int32, and scales, bias and activation are applied to the sums before they are stored.
//
// Coding reads x twice, the second time from the cache: rows in (sizeof(T) + 1) bytes of memory. Few rows (decoding)
// are bound by reading out in bytes of weights, once for eight rows: a warp takes one output, by dp4a. Many rows take
// tensor cores: 2 rows in out operations, and in tiles of 128 x 128 rows in out / 64 bytes, most of them from L2. Sums
// are exact, so results do not depend on which kernel it was.
#include "core/base/code_scale.h"
#include "cuda/device/activations.h"
#include "cuda/device/cp_async.h"
#include "cuda/device/ldmatrix.h"
#include "cuda/device/mma_m16n8k32.h"
#include "cuda/device/reduce.h"
#include "cuda/launch.h"

namespace mixtape {
namespace cuda {
namespace {

constexpr int piece = 16;  // codes that are moved at once; rows of coded x are whole numbers of them
constexpr int coding_threads = 256;

// A block a row.
template <class T, int N>
__global__ void __launch_bounds__(coding_threads)
    code_rows_kernel(Rows<int8_t> codes, float* scales, Rows<const T> x, int64_t in) {
  struct Storage {
    float scratch[warp_size];
    int finite[warp_size];
  };
  Storage& s = shared_memory<Storage>();
  const int64_t row = blockIdx.x;
  float most = 0;
  int infinite = 0;
  for (int64_t i = int64_t(threadIdx.x) * N; i < in; i += coding_threads * N) {
    float v[N];
    load(v, x[row] + i);
#pragma unroll
    for (int j = 0; j < N; ++j) {
      infinite |= !(fabsf(v[j]) <= 3.402823466e38f);  // NaN too, which a maximum would pass over
      most = fmaxf(most, fabsf(v[j]));
    }
  }
  most = block_max(most, s.scratch);
  infinite = block_sum(infinite, s.finite);
  const float scale = infinite ? 0 : code_scale(DType::i8, most), by = scale == 0 ? 0 : 1 / scale;
  for (int64_t i = int64_t(threadIdx.x) * N; i < codes.stride; i += coding_threads * N) {
    float v[N];
    if (i < in)
      load(v, x[row] + i);
    else
      for (int j = 0; j < N; ++j) v[j] = 0;
#pragma unroll
    for (int j = 0; j < N; ++j) v[j] = infinite ? 0 : v[j] * by;
    store(codes[row] + i, v);
  }
  if (threadIdx.x == 0) scales[row] = infinite ? NAN : scale;
}

template <class T>
struct Int8Product {
  Rows<T> y;
  Rows<const int8_t> x, codes;
  const float *x_scale, *scale;
  const T* bias;
  int64_t rows, in, out;
  Unary activation;

  __device__ void put(int64_t row, int64_t o, int sum) const {
    const float u = float(sum) * x_scale[row] * scale[o] + (bias ? to_float(bias[o]) : 0.f);
    y[row][o] = from_float<T>(activate(activation, u));
  }
};

constexpr int warps_of_rows = 8, rows_at_once = 8, most_few_rows = 16;

// Block (outputs, rows_at_once rows).
template <class T, bool vectors>
__global__ void __launch_bounds__(warps_of_rows* warp_size) few_rows_kernel(Int8Product<T> a) {
  const int64_t o = int64_t(blockIdx.x) * warps_of_rows + warp_id(), first = int64_t(blockIdx.y) * rows_at_once;
  if (o >= a.out) return;  // a whole warp, and no barrier follows
  const int rows = int(std::min<int64_t>(rows_at_once, a.rows - first));
  int sums[rows_at_once] = {};
  if constexpr (vectors) {
    for (int64_t i = lane_id() * piece; i < a.in; i += warp_size * piece) {
      const auto w = *reinterpret_cast<const Vec<int, piece / 4>*>(a.codes[o] + i);
#pragma unroll
      for (int r = 0; r < rows_at_once; ++r) {
        if (r >= rows) break;
        const auto x = *reinterpret_cast<const Vec<int, piece / 4>*>(a.x[first + r] + i);
#pragma unroll
        for (int j = 0; j < piece / 4; ++j) sums[r] = __dp4a(w.v[j], x.v[j], sums[r]);
      }
    }
  } else {
    for (int64_t i = lane_id(); i < a.in; i += warp_size)
#pragma unroll
      for (int r = 0; r < rows_at_once; ++r)
        if (r < rows) sums[r] += int(a.codes[o][i]) * int(a.x[first + r][i]);
  }
#pragma unroll
  for (int r = 0; r < rows_at_once; ++r) {
    if (r >= rows) break;
    const int sum = warp_sum(sums[r]);
    if (lane_id() == 0) a.put(first + r, o, sum);
  }
}

constexpr int tile = 128, tile_k = 64, tile_threads = 256;  // two warps across rows, four across outputs
constexpr int tile_row = tile_k + piece;                    // bytes: eight rows' pieces are in eight groups of banks
struct Int8Tiles {
  alignas(16) int8_t x[2][tile][tile_row], w[2][tile][tile_row];
};

// 64 columns of 128 rows from column k on, with zeros outside of the matrix.
template <bool vectors>
__device__ void load_tile(int8_t (&to)[tile][tile_row], Rows<const int8_t> from, int64_t first, int64_t rows, int64_t k,
                          int64_t cols) {
  constexpr int pieces = tile_k / piece;
#pragma unroll
  for (int i = int(threadIdx.x); i < tile * pieces; i += tile_threads) {
    const int r = i / pieces, c = i % pieces * piece;
    const int64_t left = first + r < rows ? cols - (k + c) : 0;
    const int valid = int(std::max<int64_t>(0, std::min<int64_t>(piece, left)));
    const int8_t* const source = valid > 0 ? from[first + r] + k + c : from.data;
    if constexpr (vectors) {
      copy_async(&to[r][c], source, valid);
    } else {
      for (int j = 0; j < piece; ++j) to[r][c + j] = j < valid ? source[j] : int8_t(0);
    }
  }
}

// Block (outputs, rows), 128 of each. A warp has 64 rows of 32 outputs.
template <class T, bool vectors>
__global__ void __launch_bounds__(tile_threads) tiles_kernel(Int8Product<T> a) {
  Int8Tiles& s = shared_memory<Int8Tiles>();
  const int64_t first_row = int64_t(blockIdx.y) * tile, first_output = int64_t(blockIdx.x) * tile;
  const int m = warp_id() / 4 * 64, n = warp_id() % 4 * 32, lane = lane_id();
  const auto load_both = [&](int64_t k, int slot) {
    load_tile<true>(s.x[slot], a.x, first_row, a.rows, k, a.x.stride);
    load_tile<vectors>(s.w[slot], a.codes, first_output, a.out, k, a.in);
    copy_async_commit();
  };
  int sums[4][4][4] = {};
  load_both(0, 0);
  for (int64_t k = 0; k < a.in; k += tile_k) {
    const int slot = int(k / tile_k % 2);
    if (k + tile_k < a.in) {
      load_both(k + tile_k, slot ^ 1);
      copy_async_wait<1>();
    } else {
      copy_async_wait<0>();
    }
    __syncthreads();
#pragma unroll
    for (int kk = 0; kk < tile_k; kk += 32) {
      uint32_t x[4][4], w[2][4];
#pragma unroll
      for (int i = 0; i < 4; ++i)
        ldmatrix<false>(x[i],
                        reinterpret_cast<const bf16*>(&s.x[slot][m + 16 * i + lane % 16][kk + piece * (lane / 16)]));
#pragma unroll
      for (int i = 0; i < 2; ++i)
        ldmatrix<false>(w[i], reinterpret_cast<const bf16*>(
                                  &s.w[slot][n + 16 * i + lane % 8 + 8 * (lane / 16)][kk + piece * (lane / 8 % 2)]));
#pragma unroll
      for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) mma_m16n8k32(sums[i][j], x[i], w[j / 2][j % 2 * 2], w[j / 2][j % 2 * 2 + 1]);
    }
    __syncthreads();  // the slot is free for the tile after the next
  }
#pragma unroll
  for (int i = 0; i < 4; ++i)
#pragma unroll
    for (int j = 0; j < 4; ++j)
#pragma unroll
      for (int r = 0; r < 4; ++r) {
        const int64_t row = first_row + m + 16 * i + lane / 4 + r / 2 * 8;
        const int64_t o = first_output + n + 8 * j + lane % 4 * 2 + r % 2;
        if (row < a.rows && o < a.out) a.put(row, o, sums[i][j][r]);
      }
}

template <class T>
void linear_int8(Runtime& runtime, const LinearInt8& a, const Tensor& codes, const Tensor& scales) {
  const int64_t rows = a.x.rows(), in = a.x.cols(), out = a.codes.rows();
  dispatch_vectors<T>({2, in}, {a.x}, [&]<int N>() {
    launch(runtime, code_rows_kernel<T, N>, dim3(unsigned(rows)), dim3(coding_threads), 2 * warp_size * sizeof(float),
           rows_of<int8_t>(codes), scales.data<float>(), rows_of<const T>(a.x), in);
  });
  const Int8Product<T> product{.y = rows_of<T>(a.y),
                               .x = rows_of<const int8_t>(codes),
                               .codes = rows_of<const int8_t>(a.codes),
                               .x_scale = scales.data<float>(),
                               .scale = a.scale.data<float>(),
                               .bias = data_of<const T>(a.bias),
                               .rows = rows,
                               .in = in,
                               .out = out,
                               .activation = a.activation};
  const auto run = [&]<bool vectors>() {
    if (rows <= most_few_rows)
      return launch(runtime, few_rows_kernel<T, vectors>,
                    dim3(unsigned(divide_up(out, warps_of_rows)), unsigned(divide_up(rows, rows_at_once))),
                    dim3(warps_of_rows * warp_size), 0, product);
    launch(runtime, tiles_kernel<T, vectors>, dim3(unsigned(divide_up(out, tile)), unsigned(divide_up(rows, tile))),
           dim3(tile_threads), sizeof(Int8Tiles), product);
  };
  if (vectors_fit({2, in}, piece, {a.codes}))
    run.template operator()<true>();
  else
    run.template operator()<false>();
}

}  // namespace
}  // namespace cuda

void CudaMatmul::linear_int8(const LinearInt8& a) {
  const int64_t rows = a.x.rows(), padded = cuda::divide_up(a.x.cols(), cuda::piece) * cuda::piece;
  const Tensor codes = backend_.workspace({rows, padded}, DType::i8), scales = backend_.workspace({rows}, DType::f32);
  if (backend_.planning() || rows == 0) return;
  dispatch<float, fp16, bf16>(a.x.dtype(), "linear_int8",
                              [&]<class T>() { cuda::linear_int8<T>(backend_.runtime(), a, codes, scales); });
}

}  // namespace mixtape
