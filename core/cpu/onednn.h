// Products of bf16 matrices by oneDNN's matmul primitives, on CPUs that multiply bf16 (AVX-512 BF16, AMX).
//
// A primitive belongs to a shape and its strides. It is made on first use and kept; its scratch memory is the
// library's own, one buffer a thread.
#pragma once

#include "core/cpu/gemm.h"

namespace mixtape::onednn {

// True if the CPU has instructions for bf16 products with fp32 sums that oneDNN uses.
bool multiplies_bf16();

// C = op(A) op(B) + beta C with beta 0 or 1 and alpha 1. Uses all threads outside a parallel region, one inside it.
void bf16_gemm(const Gemm& product);

}  // namespace mixtape::onednn
