// Muon: the iterations and the update against their formulas in float64.
#include "train/optim/muon.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/base/philox.h"
#include "core/cpu/backend.h"

namespace mixtape {
namespace {

using Doubles = std::vector<double>;

Doubles normals(int64_t n, uint64_t seed) {
  Doubles values;
  for (int64_t i = 0; i < n; ++i) {
    const auto r = philox(philox_key(seed), uint64_t(i), 0, Purpose::test);
    values.push_back(double(normal(r[0], r[1])));
  }
  return values;
}

// A matrix in a vector, or its transpose.
struct View {
  const Doubles& data;
  int64_t rows, cols, row_stride, col_stride;
  double at(int64_t r, int64_t c) const { return data[size_t(r * row_stride + c * col_stride)]; }
};
View plain(const Doubles& x, int64_t rows, int64_t cols) { return {x, rows, cols, cols, 1}; }
View transposed(const Doubles& x, int64_t rows, int64_t cols) { return {x, cols, rows, 1, cols}; }
Doubles product(const View& a, const View& b) {
  Doubles y(size_t(a.rows * b.cols));
  for (int64_t r = 0; r < a.rows; ++r)
    for (int64_t k = 0; k < a.cols; ++k)
      for (int64_t c = 0; c < b.cols; ++c) y[size_t(r * b.cols + c)] += a.at(r, k) * b.at(k, c);
  return y;
}

Doubles divided_by_norm(Doubles x) {
  double squares = 0;
  for (const double v : x) squares += v * v;
  for (double& v : x) v /= std::sqrt(squares);
  return x;
}

// As published: X = a X + (b A + c A^2) X with A = X X^T, always from the left.
Doubles iterated(Doubles x, int64_t rows, int64_t cols, int64_t times) {
  for (int64_t i = 0; i < times; ++i) {
    const Doubles a = product(plain(x, rows, cols), transposed(x, rows, cols));
    Doubles b = product(plain(a, rows, rows), plain(a, rows, rows));
    for (size_t j = 0; j < b.size(); ++j) b[j] = -4.7750 * a[j] + 2.0315 * b[j];
    const Doubles bx = product(plain(b, rows, rows), plain(x, rows, cols));
    for (size_t j = 0; j < x.size(); ++j) x[j] = 3.4445 * x[j] + bx[j];
  }
  return x;
}

class MuonTest : public testing::Test {
 protected:
  MuonTest() { backend.bind(arena); }
  ~MuonTest() override { EXPECT_TRUE(arena.guard_errors().empty()); }
  Tensor put(const Doubles& values, Shape shape) {
    const Tensor t = backend.make(shape, DType::f32);
    std::copy(values.begin(), values.end(), t.data<float>());
    return t;
  }
  CpuBackend backend{{.threads = 2, .determinism = Determinism::strict}};
  HostMemory memory{1 << 26};
  Arena arena{memory.data(), memory.bytes(), Arena::Guards::on};
};

// Wide and tall, where products are taken from either side, and an even and an odd number of times, after which the
// result lies in either of two buffers.
TEST_F(MuonTest, IteratesAsPublished) {
  for (const auto& [rows, cols] : {std::pair<int64_t, int64_t>{1, 1}, {1, 7}, {24, 24}, {17, 60}, {60, 17}, {5, 1}})
    for (const int64_t times : {1, 2, 5}) {
      const Doubles start = divided_by_norm(normals(rows * cols, uint64_t(rows)));
      const Tensor x = put(start, {rows, cols});
      orthogonalise(backend, x, times);
      const Doubles expected = iterated(start, rows, cols, times);
      for (size_t i = 0; i < expected.size(); ++i)
        ASSERT_NEAR(x.data<float>()[i], expected[i], 1e-4) << rows << " x " << cols << ", " << times;
    }
}

// Rows become of about equal length and about orthogonal, however unlike they were.
TEST_F(MuonTest, EveryDirectionGetsAboutTheSameLength) {
  constexpr int64_t rows = 16, cols = 200;
  Doubles start = normals(rows * cols, 3);
  for (int64_t i = 0; i < rows * cols; ++i) start[size_t(i)] *= std::pow(0.8, double(i / cols));
  const Tensor x = put(divided_by_norm(start), {rows, cols});
  orthogonalise(backend, x, 5);
  const Doubles now(x.data<float>(), x.data<float>() + rows * cols);
  const Doubles gram = product(plain(now, rows, cols), transposed(now, rows, cols));
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < rows; ++c) {
      const double x_rc = gram[size_t(r * rows + c)];
      if (r == c) {
        EXPECT_TRUE(x_rc > 0.4 && x_rc < 1.6) << r << " " << x_rc;
      } else {
        EXPECT_LT(std::abs(x_rc), 0.5) << r << " " << c;
      }
    }
}

// Two steps of a matrix, and one that is skipped.
TEST_F(MuonTest, UpdatesAMatrixByItsFormula) {
  constexpr int64_t rows = 12, cols = 40, n = rows * cols;
  const MuonConfig config;
  const UpdateTensor tensor{.offset = 77, .rows = rows, .cols = cols, .lr_factor = 0.5f, .weight_decay = 0.1f};
  Doubles w = normals(n, 1), m(n);
  const Tensor weights = put(w, {n}), moment = put(m, {n});
  for (const double lr : {0.02, 0.01}) {
    const Doubles g = normals(n, uint64_t(1000 * lr));
    StepState state{.learning_rate = float(lr), .grad_factor = 0.25f};
    muon(backend, config,
         {.state = &state, .weights = weights, .gradients = put(g, {n}), .m = moment, .tensor = tensor});
    Doubles u(n);
    for (size_t i = 0; i < u.size(); ++i) {
      m[i] = 0.95 * m[i] + 0.25 * g[i];
      u[i] = 0.25 * g[i] + 0.95 * m[i];
    }
    u = iterated(divided_by_norm(u), rows, cols, config.iterations);
    for (size_t i = 0; i < u.size(); ++i) {
      w[i] = w[i] * (1 - 0.5 * lr * 0.1) - 0.5 * lr * 0.2 * std::sqrt(double(cols)) * u[i];
      ASSERT_NEAR(weights.data<float>()[i], w[i], 1e-5) << i;
    }
  }
  const std::vector<float> before(weights.data<float>(), weights.data<float>() + n);
  StepState state{.learning_rate = 0.1f, .finite = 0};
  muon(backend, config,
       {.state = &state, .weights = weights, .gradients = put(Doubles(n, NAN), {n}), .m = moment, .tensor = tensor});
  EXPECT_EQ(std::vector<float>(weights.data<float>(), weights.data<float>() + n), before);
}

}  // namespace
}  // namespace mixtape
