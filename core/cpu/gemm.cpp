#include "core/cpu/gemm.h"

#include <cblas-openblas.h>
#include <oneapi/dnnl/dnnl.h>

#include "core/cpu/gemm_choices.h"
#include "core/cpu/onednn.h"
#include "core/cpu/parallel.h"

namespace mixtape {
namespace {

void openblas_sgemm(const Gemm& p) {
  cblas_sgemm(CblasRowMajor, p.transpose_a ? CblasTrans : CblasNoTrans, p.transpose_b ? CblasTrans : CblasNoTrans,
              blasint(p.m), blasint(p.n), blasint(p.k), p.alpha, static_cast<const float*>(p.a), blasint(p.lda),
              static_cast<const float*>(p.b), blasint(p.ldb), p.beta, p.c, blasint(p.ldc));
}

void onednn_sgemm(const Gemm& p) {
  const dnnl_status_t status =
      dnnl_sgemm(p.transpose_a ? 'T' : 'N', p.transpose_b ? 'T' : 'N', p.m, p.n, p.k, p.alpha,
                 static_cast<const float*>(p.a), p.lda, static_cast<const float*>(p.b), p.ldb, p.beta, p.c, p.ldc);
  if (status != dnnl_success)
    throw Error("matmul: oneDNN refuses {} x {} x {} (status {})", p.m, p.n, p.k, int(status));
}

// One call of a library, with as many threads as the place of the call allows.
void call_library(GemmLibrary library, const Gemm& p) {
  if (p.type == DType::bf16) return onednn::bf16_gemm(p);
  library == GemmLibrary::openblas ? openblas_sgemm(p) : onednn_sgemm(p);
}

Tile tile_at(const Gemm& p, const GemmChoice& choice, int64_t index) {
  const int64_t i = index % choice.row_parts, j = index / choice.row_parts;
  const int64_t row = p.m * i / choice.row_parts, col = p.n * j / choice.col_parts;
  return {row, p.m * (i + 1) / choice.row_parts - row, col, p.n * (j + 1) / choice.col_parts - col};
}

Gemm part_of(const Gemm& p, const Tile& tile) {
  Gemm part = p;
  part.m = tile.rows;
  part.n = tile.cols;
  part.a = static_cast<const std::byte*>(p.a) + tile.row * (p.transpose_a ? 1 : p.lda) * size_of(p.type);
  part.b = static_cast<const std::byte*>(p.b) + tile.col * (p.transpose_b ? p.ldb : 1) * size_of(p.type);
  part.c = p.c + tile.row * p.ldc + tile.col;
  return part;
}

void run_tile(const Gemm& p, const GemmChoice& choice, int64_t index, const TileDone& done) {
  const Tile tile = tile_at(p, choice, index);
  if (tile.rows == 0 || tile.cols == 0) return;
  call_library(choice.library, part_of(p, tile));
  if (done) done(tile);
}

// The library's own threads, then the rest of the work in row blocks of about 64 KiB of C.
void run_whole(const Gemm& p, const GemmChoice& choice, const TileDone& done) {
  call_library(choice.library, p);
  if (!done) return;
  const int64_t block = std::max<int64_t>(1, (1 << 14) / p.n), blocks = (p.m + block - 1) / block;
  parallel_for(blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) done({i * block, std::min(block, p.m - i * block), 0, p.n});
  });
}

}  // namespace

void run_gemm(const Gemm& p, const GemmChoice& choice, TileDone done) {
  if (p.m == 0 || p.n == 0) return;
  if (choice.own_threads) return run_whole(p, choice, done);
  parallel_tiles(int64_t(choice.row_parts) * choice.col_parts, [&](int64_t i) { run_tile(p, choice, i, done); });
}

void gemm(const Gemm& product, Determinism determinism, TileDone done) {
  const GemmChoice choice = determinism == Determinism::strict ? static_choice(product) : timed_choice(product);
  run_gemm(product, choice, done);
}

void gemm_here(const Gemm& product) {
  if (product.m > 0 && product.n > 0) call_library(GemmLibrary::openblas, product);
}

bool native_bf16() {
  static const bool native = onednn::multiplies_bf16();
  return native;
}

const char* openblas_kernels() { return openblas_get_corename(); }

}  // namespace mixtape
