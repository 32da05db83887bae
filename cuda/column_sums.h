// Sums over rows, as gradients of weights and biases need them: each block of rows gives a partial sum, and the partial
// sums are added in their order. The number of blocks follows from the shape, and so do the bits.
#pragma once

#include "cuda/launch.h"

namespace mixtape::cuda {

// How rows are cut: into at most `most_blocks`, of at least `least_rows`.
struct RowBlocks {
  static constexpr int64_t most_blocks = 512, least_rows = 8;
  int64_t rows, size, count;
  explicit RowBlocks(int64_t n)
      : rows(n), size(std::max(least_rows, divide_up(n, most_blocks))), count(divide_up(n, size)) {}
};

constexpr int parts_a_thread = 16, most_groups = 32;

// to[col] = (or +=) sum over blocks of parts[block, col]. Threads (column, group): a group adds up neighbouring parts
// in their order, and the sums of groups are added in theirs. One thread a column would wait for each of 512 parts.
template <class G>
__global__ void __launch_bounds__(warp_size* most_groups)
    sum_parts_kernel(G* to, const float* parts, int64_t blocks, int64_t cols, bool accumulate) {
  struct Storage {
    float sums[most_groups][warp_size];
  };
  Storage& s = shared_memory<Storage>();
  const int64_t col = int64_t(blockIdx.x) * warp_size + lane_id();
  const int group = warp_id(), groups = int(blockDim.x) / warp_size;
  const int64_t each = (blocks + groups - 1) / groups, end = std::min(blocks, each * (group + 1));
  float sum = 0;
#pragma unroll 8
  for (int64_t b = each * group; b < end; ++b) sum += col < cols ? parts[b * cols + col] : 0.f;
  s.sums[group][lane_id()] = sum;
  __syncthreads();
  if (group > 0 || col >= cols) return;
  for (int g = 1; g < groups; ++g) sum += s.sums[g][lane_id()];
  put(to + col, sum, accumulate);
}

inline void sum_parts(Runtime& runtime, const Grad& to, const float* parts, int64_t blocks) {
  if (!to) return;
  const int64_t cols = to.tensor.count(),
                groups = std::clamp<int64_t>(divide_up(blocks, parts_a_thread), 1, most_groups);
  dispatch<float, fp16, bf16>(to.tensor.dtype(), "column sums", [&]<class G>() {
    launch(runtime, sum_parts_kernel<G>, dim3(unsigned(divide_up(cols, warp_size))), dim3(unsigned(warp_size * groups)),
           most_groups * warp_size * sizeof(float), to.tensor.data<G>(), parts, blocks, cols, to.accumulates());
  });
}

// parts[block, col] = sum over the block's rows of x[row, col]: block is the elementwise row.
template <class T, int N>
struct ColumnSumsBody {
  float* parts;
  Rows<const T> x;
  int64_t rows, cols, block_rows;
  __device__ void operator()(int64_t block, int64_t item) const {
    float sum[N] = {};
    const int64_t begin = block * block_rows, end = std::min(rows, begin + block_rows);
    for (int64_t r = begin; r < end; ++r) {
      float v[N];
      load(v, x[r] + item * N);
#pragma unroll
      for (int i = 0; i < N; ++i) sum[i] += v[i];
    }
#pragma unroll
    for (int i = 0; i < N; ++i) parts[block * cols + item * N + i] = sum[i];
  }
};

// parts: [RowBlocks(x.rows()).count, x.cols()], float32.
inline void column_sums(Runtime& runtime, const Grad& to, const Tensor& x, float* parts) {
  const RowBlocks blocks(x.rows());
  const Extent e{x.rows(), x.cols()};
  dispatch<float, fp16, bf16>(x.dtype(), "column sums", [&]<class T>() {
    dispatch_vectors<T>(e, {x}, [&]<int N>() {
      elementwise(runtime, blocks.count, e.cols / N,
                  ColumnSumsBody<T, N>{parts, rows_of<const T>(x), e.rows, e.cols, blocks.size});
    });
  });
  sum_parts(runtime, to, parts, blocks.count);
}

}  // namespace mixtape::cuda
