#include "train/optim/muon.h"

#include <cmath>

#include "core/ops/cast.h"
#include "core/ops/matmul.h"

namespace mixtape {
namespace {

constexpr float a = 3.4445f, b = -4.7750f, c = 2.0315f;

// to = (or +=) scale x
void add_to(Backend& backend, const Tensor& to, Write write, const Tensor& x, float scale) {
  backend.cast().convert({.y = {to, write}, .x = x, .scale = scale});
}

// y = a x + (b A + c A^2) x, or x times that from the right where x has more rows than columns.
void iterate(Backend& backend, const Tensor& y, const Tensor& x, const Tensor& square, const Tensor& fourth) {
  MatmulKernels& matmul = backend.matmul();
  const bool wide = x.rows() <= x.cols();
  if (wide)
    matmul.linear({.y = square, .x = x, .weight = x});
  else
    matmul.linear_backward({.dweight = {square, Write::overwrite}, .dy = x, .x = x, .weight = square});
  matmul.linear({.y = fourth, .x = square, .weight = square});  // which is symmetric
  add_to(backend, fourth, Write::overwrite, fourth, c);
  add_to(backend, fourth, Write::accumulate, square, b);
  if (wide)
    matmul.linear_backward({.dx = {y, Write::overwrite}, .dy = fourth, .x = y, .weight = x});
  else
    matmul.linear({.y = y, .x = x, .weight = fourth});
  add_to(backend, y, Write::accumulate, x, a);
}

}  // namespace

void orthogonalise(Backend& backend, const Tensor& x, int64_t iterations) {
  const int64_t side = std::min(x.rows(), x.cols());
  const Tensor other = backend.workspace(x.shape(), DType::f32);
  const Tensor square = backend.workspace({side, side}, DType::f32),
               fourth = backend.workspace({side, side}, DType::f32);
  Tensor from = x, to = other;
  for (int64_t i = 0; i < iterations; ++i) {
    iterate(backend, to, from, square, fourth);
    std::swap(from, to);
  }
  if (iterations % 2 == 1 && !backend.planning()) backend.copy(x, other);
}

void muon(Backend& backend, const MuonConfig& config, const MuonUpdate& u) {
  const UpdateTensor& t = u.tensor;
  const Tensor x = backend.workspace({t.rows, t.cols}, DType::f32), direction = x.reshaped({t.count()});
  const Tensor root_mean_square = backend.workspace({1}, DType::f32);
  UpdateTensor alone = t;
  alone.offset = 0;
  const std::vector<UpdateRange> ranges = Parameters::ranges_of({alone});
  const auto n_ranges = int64_t(ranges.size());
  muon_direction(backend, {.state = u.state,
                           .direction = direction,
                           .gradients = u.gradients,
                           .m = u.m,
                           .ranges = ranges.data(),
                           .n_ranges = n_ranges,
                           .momentum = float(config.momentum),
                           .nesterov = config.nesterov,
                           .seed = u.seed});
  const UpdateTensor whole{.rows = t.rows, .cols = t.cols};
  parameter_scales(backend, {root_mean_square, direction, &whole, 1, 1e-30f});  // the least: no division by 0
  divide_by_norm(backend, {direction, root_mean_square});
  orthogonalise(backend, x, config.iterations);
  follow(backend, {.state = u.state,
                   .weights = u.weights,
                   .master = u.master,
                   .direction = direction,
                   .ranges = ranges.data(),
                   .n_ranges = n_ranges,
                   .factor = float(0.2 * std::sqrt(double(std::max(t.rows, t.cols)))),
                   .seed = u.seed});
}

}  // namespace mixtape
