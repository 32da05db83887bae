// Matrix products on the CPU: C = alpha op(A) op(B) + beta C, row-major, over OpenBLAS and oneDNN.
//
// The libraries do the arithmetic of one tile of C on one thread; which tiles there are, and which thread takes which,
// is decided here. So the bits depend on the partition alone and not on the number of threads, and whatever follows a
// product (bias, activation, softmax) is done on a tile while it is in cache. In strict mode the partition and the
// library follow from the shape by a fixed rule; in fast mode they are timed once a shape (core/cpu/gemm_choices.h).
//
// OpenBLAS is never called outside a parallel region that this file opened: there it would start threads of its own.
#pragma once

#include <cstdint>

#include "core/backend.h"
#include "core/base/dtype.h"
#include "core/cpu/parallel.h"

namespace mixtape {

// op(A) is [m, k], op(B) is [k, n]; a transposed operand is stored the other way round. lda, ldb and ldc are the
// distances between stored rows, in elements. A and B are both fp32, or both bf16 on a CPU that multiplies bf16
// (native_bf16()); sums and C are fp32. With beta = 0, C is not read.
struct Gemm {
  bool transpose_a = false, transpose_b = false;
  int64_t m = 0, n = 0, k = 0;
  float alpha = 1;
  const void* a = nullptr;
  int64_t lda = 0;
  const void* b = nullptr;
  int64_t ldb = 0;
  float beta = 0;
  float* c = nullptr;
  int64_t ldc = 0;
  DType type = DType::f32;
  // Where m follows from the data: the most it can be, which A has room for. What is timed is this product, so that a
  // run meets all its shapes in its first step, and a resumed one makes no choice that the other did not.
  int64_t most_m = 0;
};

// A part of C.
struct Tile {
  int64_t row = 0, rows = 0, col = 0, cols = 0;
};

// A reference to a callable that outlives the call: what to do with a finished tile, in the thread that computed it.
class TileDone {
 public:
  TileDone() = default;
  template <class Body>
  TileDone(const Body& body)
      : body_(&body), call_([](const void* b, const Tile& t) { (*static_cast<const Body*>(b))(t); }) {}
  explicit operator bool() const { return call_ != nullptr; }
  void operator()(const Tile& tile) const { call_(body_, tile); }

 private:
  const void* body_ = nullptr;
  void (*call_)(const void*, const Tile&) = nullptr;
};

// body(i) for i in [0, n), for tasks that call gemm_here(). One task too runs in a parallel region.
template <class Body>
void parallel_tiles(int64_t n, Body&& body) {
  if (omp_in_parallel() || thread_count() == 1) {
    for (int64_t i = 0; i < n; ++i) body(i);
    return;
  }
#pragma omp parallel for schedule(dynamic, 1)
  for (int64_t i = 0; i < n; ++i) body(i);
}

// Computes the product; calls done(tile) for parts of C that cover it, when they are finished.
void gemm(const Gemm& product, Determinism determinism, TileDone done = {});

// One product on the calling thread, inside parallel_tiles(). Its bits depend on the shape alone.
void gemm_here(const Gemm& product);

// True if bf16 operands may be given as they are: the CPU multiplies them with fp32 sums (AVX-512 BF16 or AMX).
bool native_bf16();

// The kernels that OpenBLAS chose for this CPU, for `mixtape doctor`: "Haswell", "Zen", "SkylakeX", ...
const char* openblas_kernels();

}  // namespace mixtape
