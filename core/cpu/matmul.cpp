// Linear layers. fp32 is multiplied where it lies. Narrower types are multiplied as they are by CPUs that can; on
// others they are widened, a block of rows and a panel of weights at a time, so that the copies stay small and each
// element is widened once a block.
#include "core/ops/matmul.h"

#include "core/cpu/backend.h"
#include "core/cpu/gemm.h"
#include "core/cpu/gemm_epilogue.h"
#include "core/cpu/gemm_rows.h"
#include "core/cpu/gemm_tensors.h"

namespace mixtape {
namespace {

// Column sums are made per this many rows, then added in order.
constexpr int64_t sum_rows = 256, sum_cols = 512;
// Rows that are widened, or whose du is held, at a time: a multiple of sum_rows.
constexpr int64_t block_rows = 1024;

// du of a block of rows, and its column sums in `sums` (one row for each sum_rows rows; may be absent).
void slope(const LinearBackward& a, const Tensor& du, const Tensor& sums, int64_t begin, int64_t rows) {
  const int64_t cols = a.dy.cols(), down = (rows + sum_rows - 1) / sum_rows, across = (cols + sum_cols - 1) / sum_cols;
  const Block dy = Block(a.dy).at(begin, 0);
  const Block pre = a.pre ? Block(a.pre).at(begin, 0) : Block();
  const Block out = du ? Block(du) : Block();
  parallel_tasks(down * across, [&](int64_t task) {
    const int64_t row = task / across * sum_rows, col = task % across * sum_cols;
    activation_slope({.du = out.at(row, col),
                      .dy = dy.at(row, col),
                      .pre = pre.at(row, col),
                      .column_sums = sums ? sums.data<float>() + (begin + row) / sum_rows * cols + col : nullptr,
                      .activation = a.activation,
                      .rows = std::min(sum_rows, rows - row),
                      .cols = std::min(sum_cols, cols - col)});
  });
}

}  // namespace

void CpuMatmul::linear(const Linear& a) {
  const int64_t rows = a.x.rows(), in = a.x.cols(), out = a.weight.rows();
  const bool widens = !multiplied_as_is(a.x.dtype()), narrow = a.y.dtype() != DType::f32;
  const int64_t block = narrow ? std::min(rows, block_rows) : rows;
  const int64_t panel = narrow ? panel_rows(out, in, block) : out;
  Tensor x_wide, weight_wide, sums;
  if (widens) {
    x_wide = backend_.workspace({block, in}, DType::f32);
    weight_wide = backend_.workspace({panel, in}, DType::f32);
  }
  if (narrow) sums = backend_.workspace({block, panel}, DType::f32);
  if (backend_.planning()) return;

  for (int64_t r = 0; r < rows; r += block) {
    const int64_t n_rows = std::min(block, rows - r);
    const Tensor x = widened(a.x.slice(r, n_rows), x_wide);
    for (int64_t o = 0; o < out; o += panel) {
      const int64_t n_out = std::min(panel, out - o);
      const Tensor weight = widened(a.weight.slice(o, n_out), weight_wide);
      const Tensor product = narrow ? sums.slice(0, n_rows).columns(0, n_out) : a.y.slice(r, n_rows).columns(o, n_out);
      const auto finish = [&](const Tile& t) {
        bias_activation({.y = Block(a.y).at(r + t.row, o + t.col),
                         .pre = a.pre ? Block(a.pre).at(r + t.row, o + t.col) : Block(),
                         .sums = Block(product).at(t.row, t.col),
                         .bias = a.bias ? a.bias.raw() + (o + t.col) * size_of(a.bias.dtype()) : nullptr,
                         .activation = a.activation,
                         .rows = t.rows,
                         .cols = t.cols});
      };
      const bool nothing_to_do = !narrow && !a.bias && !a.pre && a.activation == Unary::none;
      gemm(product_of(x, false, weight, true, product), backend_.determinism(),
           nothing_to_do ? TileDone() : TileDone(finish));
    }
  }
}

void CpuMatmul::linear_backward(const LinearBackward& a) {
  const int64_t rows = a.x.rows(), in = a.x.cols(), out = a.weight.rows();
  const bool widens = !multiplied_as_is(a.x.dtype());
  const DType type = widens ? DType::f32 : a.x.dtype();  // of the products' operands
  const bool products = a.dx || a.dweight;
  const bool du_is_dy = a.dy.dtype() == type && (a.activation == Unary::none || a.dy_is_scratch);
  const bool dx_wide = a.dx && a.dx.tensor.dtype() != DType::f32;
  const bool dweight_wide = a.dweight && a.dweight.tensor.dtype() != DType::f32;
  const bool blocks = widens || dx_wide || (products && !du_is_dy);
  const int64_t block = blocks ? std::min(rows, block_rows) : rows;
  const int64_t panel = widens ? panel_rows(out, in, block) : out;
  // A dweight of 16 bits is summed in fp32 over all rows: where these are one block, a panel at a time.
  const int64_t dweight_panel = dweight_wide && block >= rows ? panel_rows(out, in, block) : out;

  Tensor column_sums, du_block, x_wide, weight_wide, dx_block, dweight_sums;
  if (a.dbias) column_sums = backend_.workspace({(rows + sum_rows - 1) / sum_rows, out}, DType::f32);
  if (products && !du_is_dy) du_block = backend_.workspace({block, out}, type);
  if (widens && a.dweight) x_wide = backend_.workspace({block, in}, DType::f32);
  if (widens && a.dx) weight_wide = backend_.workspace({panel, in}, DType::f32);
  if (dx_wide) dx_block = backend_.workspace({block, in}, DType::f32);
  if (dweight_wide) dweight_sums = backend_.workspace({dweight_panel, in}, DType::f32);
  if (backend_.planning()) return;

  for (int64_t r = 0; r < rows; r += block) {
    const int64_t n_rows = std::min(block, rows - r);
    const Tensor du = du_is_dy ? a.dy.slice(r, n_rows) : du_block ? du_block.slice(0, n_rows) : Tensor();
    const bool writes_du = products && !(du_is_dy && a.activation == Unary::none);
    if (writes_du || column_sums) slope(a, writes_du ? du : Tensor(), column_sums, r, n_rows);
    if (a.dx) {
      const Tensor dx = dx_wide ? dx_block.slice(0, n_rows) : a.dx.tensor.slice(r, n_rows);
      for (int64_t o = 0; o < out; o += panel) {
        const int64_t n_out = std::min(panel, out - o);
        const Tensor weight = widened(a.weight.slice(o, n_out), weight_wide);
        gemm(product_of(du.columns(o, n_out), false, weight, false, dx, o > 0 || (!dx_wide && a.dx.accumulates())),
             backend_.determinism());
      }
      if (dx_wide) copy_rows(dx, {a.dx.tensor.slice(r, n_rows), a.dx.write});
    }
    if (a.dweight) {
      const Tensor x = widened(a.x.slice(r, n_rows), x_wide);
      for (int64_t o = 0; o < out; o += dweight_panel) {
        const int64_t n_out = std::min(dweight_panel, out - o);
        const Tensor sums = dweight_wide ? dweight_sums.slice(0, n_out) : a.dweight.tensor;
        gemm(
            product_of(du.columns(o, n_out), true, x, false, sums, r > 0 || (!dweight_wide && a.dweight.accumulates())),
            backend_.determinism());
        if (dweight_wide && r + n_rows == rows) copy_rows(sums, {a.dweight.tensor.slice(o, n_out), a.dweight.write});
      }
    }
  }
  if (a.dbias) add_column_sums(column_sums, a.dbias);
}

void CpuMatmul::linear_rows(const Linear& a) {
  if (backend_.planning()) return;
  constexpr int64_t chunk = 64;
  const int64_t out = a.weight.rows(), in = a.weight.cols(), chunks = (out + chunk - 1) / chunk;
  const int64_t grain = std::max<int64_t>(1, elements_per_thread / (chunk * std::max<int64_t>(in, 1)));
  for (int64_t first = 0; first < a.x.rows(); first += most_gemm_rows) {
    const int64_t rows = std::min(most_gemm_rows, a.x.rows() - first);
    parallel_for(chunks, grain, [&](int64_t begin, int64_t end) {
      float memory[most_gemm_rows * chunk];
      Block sums;
      sums.data = reinterpret_cast<std::byte*>(memory);
      sums.stride = chunk;
      for (int64_t i = begin; i < end; ++i) {
        const int64_t o = i * chunk, n_out = std::min(chunk, out - o);
        gemm_rows({.sums = sums,
                   .x = Block(a.x).at(first, 0),
                   .weight = Block(a.weight),
                   .rows = rows,
                   .cols = in,
                   .begin = o,
                   .end = o + n_out});
        bias_activation({.y = Block(a.y).at(first, o),
                         .pre = a.pre ? Block(a.pre).at(first, o) : Block(),
                         .sums = sums,
                         .bias = a.bias ? a.bias.raw() + o * size_of(a.bias.dtype()) : nullptr,
                         .activation = a.activation,
                         .rows = rows,
                         .cols = n_out});
      }
    });
  }
}

}  // namespace mixtape
