// CUDA's errors as the project's.
#pragma once

#include <cuda_runtime_api.h>

#include "core/base/error.h"

namespace mixtape::cuda {

inline void check(cudaError_t error, const char* what) {
  if (error != cudaSuccess) throw Error("cuda: {}: {}", what, cudaGetErrorString(error));
}

}  // namespace mixtape::cuda
