// cp.async.bulk.tensor (TMA): one thread starts the copy of a box of a tensor into shared memory, the hardware computes
// all addresses, and an mbarrier learns of the bytes when they are there.
//
// A TensorMap describes a tensor [rows, heads * columns] of 16-bit elements and a box of 64 columns of one head in some
// rows. In shared memory a row of the box is 128 bytes, and 16-byte piece c of the row at address x lies at piece
// c ^ (x / 128 % 8): the swizzle that wgmma reads, free of bank conflicts along rows and down them. Whatever of the box
// lies outside the tensor, and columns past the head's, become zeros; they count as bytes that came.
// The map is a kernel's argument: a struct in `const __grid_constant__`.
#pragma once

#include "core/tensor.h"
#include "cuda/device/mbarrier.h"

#ifdef __CUDACC__
#include <cuda.h>

#include "cuda/error.h"
#endif

namespace mixtape::cuda {

constexpr int box_cols = 64;  // 128 bytes: the widest that the swizzle takes

#ifdef __CUDACC__

using TensorMap = CUtensorMap;

// The driver's function, without linking the driver.
inline decltype(&cuTensorMapEncodeTiled) tensor_map_encoder() {
  static const auto function = [] {
    void* found = nullptr;
    cudaDriverEntryPointQueryResult result;
    check(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000, cudaEnableDefault, &result),
          "cuTensorMapEncodeTiled");
    if (result != cudaDriverEntryPointSuccess) throw Error("cuda: the driver has no cuTensorMapEncodeTiled");
    return reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(found);
  }();
  return function;
}

// Boxes of `box_rows` rows of a tensor [rows, heads * head_dim]. Rows begin at multiples of 16 bytes.
inline TensorMap tensor_map(const Tensor& t, int64_t head_dim, int box_rows) {
  const cuuint64_t size[3] = {cuuint64_t(head_dim), cuuint64_t(t.cols() / head_dim), cuuint64_t(t.rows())};
  const cuuint64_t stride[2] = {cuuint64_t(head_dim) * 2, cuuint64_t(t.row_stride()) * 2};  // bytes
  const cuuint32_t box[3] = {cuuint32_t(box_cols), 1, cuuint32_t(box_rows)}, steps[3] = {1, 1, 1};
  const auto type = t.dtype() == DType::bf16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16;
  TensorMap map;
  const CUresult result = tensor_map_encoder()(&map, type, 3, t.raw(), size, stride, box, steps,
                                               CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                                               CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS) throw Error("cuda: error {} of cuTensorMapEncodeTiled", int(result));
  return map;
}

__device__ inline void copy_box(void* to, const TensorMap& map, int col, int head, int row, Mbarrier& arrived) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5}], [%2];" ::
          "r"(shared_address(to)),
      "l"(&map), "r"(shared_address(&arrived)), "r"(col), "r"(head), "r"(row)
      : "memory");
}

#else

using TensorMap = emulator::TensorMap;

inline TensorMap tensor_map(const Tensor& t, int64_t head_dim, int box_rows) {
  if (reinterpret_cast<uintptr_t>(t.raw()) % 16 || head_dim % 8 || t.row_stride() % 8)
    throw Error("tensor_map: rows or heads that do not begin at multiples of 16 bytes");
  return {.data = reinterpret_cast<const unsigned char*>(t.raw()),
          .size = {head_dim, t.cols() / head_dim, t.rows()},
          .stride = {head_dim * 2, t.row_stride() * 2},
          .box = {box_cols, 1, box_rows}};
}

inline void copy_box(void* to, const TensorMap& map, int col, int head, int row, Mbarrier& arrived) {
  emulator::start_bulk_copy({static_cast<unsigned char*>(to), map, {col, head, row}, &arrived});
}

#endif

}  // namespace mixtape::cuda
