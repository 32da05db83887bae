// Flash attention on tensor cores (mma.sync, sm_80 and later), for fp16 and bf16 and head dimensions up to 128: what
// its kernels share, and their launchers. The kernels are in flash_forward.h and flash_backward.h.
//
// Source: FlashAttention-2 (arXiv 2307.08691). A block walks the other side in tiles that cp.async brings. Scores and
// their gradients live in registers: the layout of a product's result is that of the next one's operand. Tiles that no
// query of the block sees are not visited, and only tiles at an edge are masked. Head dimensions below D are padded by
// columns of zeros, which never leave shared memory.
#pragma once

#include "cuda/attention/scores.h"
#include "cuda/device/cp_async.h"
#include "cuda/device/ldmatrix.h"
#include "cuda/device/mma_m16n8k16.h"

namespace mixtape::cuda {

constexpr int flash_rows = 64, flash_threads = 128;

// Starts to copy `rows` rows of one head; rows from `valid` on, and columns from head_dim on, become zeros.
template <int D, class T>
__device__ inline void copy_tile(T* to, const Rows<const T>& from, int64_t first, int64_t col, int rows, int valid,
                                 int head_dim) {
#pragma unroll 1  // addresses of later pieces would take registers from the sums
  for (int i = int(threadIdx.x); i < rows * D / 8; i += flash_threads) {
    const int r = i / (D / 8), c = i % (D / 8) * 8;
    const bool real = r < valid && c < head_dim;
    copy_async(to + at<D>(r, c), real ? from[first + r] + col + c : from.data, real ? 16 : 0);
  }
}

// Operands of a product: docs in device/ldmatrix.h.
template <int D, class T>
__device__ inline void operand_a(uint32_t (&a)[4], const T* tile, int row, int col) {
  ldmatrix<false>(a, tile + at<D>(row + lane_id() % 16, col + lane_id() / 16 * 8));
}
template <int D, class T>
__device__ inline void operand_b(uint32_t (&b)[4], const T* tile, int row, int col) {
  ldmatrix<false>(b, tile + at<D>(row + lane_id() % 8 + lane_id() / 16 * 8, col + lane_id() / 8 % 2 * 8));
}
template <int D, class T>
__device__ inline void operand_b_transposed(uint32_t (&b)[4], const T* tile, int row, int col) {
  ldmatrix<true>(b, tile + at<D>(row + lane_id() % 16, col + lane_id() / 16 * 8));
}

// Products of a warp with M tiles of 16 rows, `apart` rows apart in shared memory: each operand from the other side is
// loaded once for all of them, so that with two the tensor cores wait half as much for shared memory.

// s[m][16 x N] = a b^T: a's rows from row + m apart, all N rows of b; both [rows][D].
template <int D, int N, int M, class T>
__device__ inline void products_of_rows(float (&s)[M][N / 8][4], const T* a, int row, int apart, const T* b) {
#pragma unroll
  for (int m = 0; m < M; ++m)
#pragma unroll
    for (int n = 0; n < N / 8; ++n)
      for (int i = 0; i < 4; ++i) s[m][n][i] = 0;
#pragma unroll
  for (int d = 0; d < D; d += 16) {
    uint32_t left[M][4];
#pragma unroll
    for (int m = 0; m < M; ++m) operand_a<D>(left[m], a, row + m * apart, d);
#pragma unroll
    for (int n = 0; n < N; n += 16) {
      uint32_t right[4];
      operand_b<D>(right, b, n, d);
#pragma unroll
      for (int m = 0; m < M; ++m) {
        mma_m16n8k16<T>(s[m][n / 8], left[m], right[0], right[1]);
        mma_m16n8k16<T>(s[m][n / 8 + 1], left[m], right[2], right[3]);
      }
    }
  }
}
template <int D, int N, class T>
__device__ inline void product_of_rows(float (&s)[1][N / 8][4], const T* a, const T* b) {
  products_of_rows<D, N>(s, a, warp_id() * 16, 0, b);
}

// acc(m)[16 x D] += p[m] x: p[m] [16 x N] as it lies in registers, rounded to T; x [N][D]. acc(m): float [D / 8][4].
template <int D, int N, int M, class T, class Acc>
__device__ inline void add_products(Acc&& acc, const float (&p)[M][N / 8][4], const T* x) {
#pragma unroll
  for (int n = 0; n < N; n += 16) {
    uint32_t left[M][4];
#pragma unroll
    for (int m = 0; m < M; ++m) {
      const float(&low)[4] = p[m][n / 8], (&high)[4] = p[m][n / 8 + 1];
      left[m][0] = pack<T>(low[0], low[1]), left[m][1] = pack<T>(low[2], low[3]);
      left[m][2] = pack<T>(high[0], high[1]), left[m][3] = pack<T>(high[2], high[3]);
    }
#pragma unroll
    for (int d = 0; d < D; d += 16) {
      uint32_t right[4];
      operand_b_transposed<D>(right, x, n, d);
#pragma unroll
      for (int m = 0; m < M; ++m) {
        mma_m16n8k16<T>(acc(m)[d / 8], left[m], right[0], right[1]);
        mma_m16n8k16<T>(acc(m)[d / 8 + 1], left[m], right[2], right[3]);
      }
    }
  }
}
template <int D, int N, class T>
__device__ inline void add_product(float (&acc)[D / 8][4], const float (&p)[1][N / 8][4], const T* x) {
  add_products<D, N>([&](int) -> float(&)[D / 8][4] { return acc; }, p, x);
}

// The launchers, for fp16 and bf16. A list of tiles is in the arguments: of flash_queries for the first, of flash_rows
// for the others.
constexpr int flash_queries = 2 * flash_rows;
template <class T>
void launch_flash_forward(Runtime& runtime, const AttentionArguments<T>& a, unsigned blocks);
template <class T>
void launch_flash_dq(Runtime& runtime, const AttentionBackwardArguments<T>& a, unsigned blocks);
template <class T>
void launch_flash_dkv(Runtime& runtime, const AttentionBackwardArguments<T>& a, unsigned blocks);

}  // namespace mixtape::cuda
