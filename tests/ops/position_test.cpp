#include "core/ops/position.h"

#include "tests/support/op_test.h"

namespace mixtape {
namespace {

constexpr int64_t places = 40;

// Sizes: rows, heads, head_dim, rotary_dim, columns behind the rotated heads.
RopeSpec spec_of(Sizes s) { return {.heads = s[1], .head_dim = s[2], .rotary_dim = s[3]}; }
int64_t width_of(Sizes s) { return s[1] * s[2] + s[4]; }

Array table_of(int64_t rotary_dim) {
  Array table({places, rotary_dim});
  const int64_t half = rotary_dim / 2;
  for (int64_t p = 0; p < places; ++p)
    for (int64_t c = 0; c < half; ++c) {
      const double angle = p * std::pow(10000.0, -2.0 * c / rotary_dim);
      table(p, c) = std::cos(angle), table(p, half + c) = std::sin(angle);
    }
  return table;
}

std::vector<int64_t> positions_of(int64_t rows) {
  std::vector<int64_t> positions;
  for (int64_t r = 0; r < rows; ++r) positions.push_back((r * 11 + 3) % places);
  return positions;
}

Array rope_reference(const Array& x, const Array& position, const Array& table, Sizes s) {
  Array y = x;
  const int64_t half = s[3] / 2;
  for (int64_t r = 0; r < s[0]; ++r)
    for (int64_t h = 0; h < s[1]; ++h)
      for (int64_t c = 0; c < half; ++c) {
        const int64_t p = int64_t(position[r]), first = h * s[2] + c, second = first + half;
        const double cosine = table(p, c), sine = table(p, half + c);
        y(r, first) = x(r, first) * cosine - x(r, second) * sine;
        y(r, second) = x(r, second) * cosine + x(r, first) * sine;
      }
  return y;
}

const OpTest rope_test{
    .name = "rope",
    // Least; odd halves; partly rotated with columns behind; usual; many rows.
    .sizes = {{1, 1, 2, 2, 0}, {3, 2, 10, 10, 3}, {5, 3, 20, 6, 20}, {4, 4, 64, 64, 128}, {300, 2, 80, 80, 80}},
    .inputs =
        [](Sizes s) {
          return Inputs{normal({s[0], width_of(s)}), integers({s[0]}, positions_of(s[0])), constant(table_of(s[3]))};
        },
    .op = [](Tape& tape, const Tensors& in, Sizes s) { return Tensors{rope(tape, in[0], in[1], in[2], spec_of(s))}; },
    .reference = [](const Arrays& in, Sizes s) { return Arrays{rope_reference(in[0], in[1], in[2], s)}; },
};
MIXTAPE_OP_TEST(rope_test);

class RopeKernel : public testing::Test {
 protected:
  RopeKernel() {
    backend.bind(arena);
    x = backend.make({7, 40}, DType::f32), y = backend.make({7, 40}, DType::f32);
    position = backend.make({7}, DType::i32), table = backend.make({places, 6}, DType::f32);
    const Array angles = table_of(6);
    for (int64_t i = 0; i < x.count(); ++i) x.data<float>()[i] = float(std::cos(1.3 * double(i)));
    for (int64_t i = 0; i < table.count(); ++i) table.data<float>()[i] = float(angles[i]);
    for (int r = 0; r < 7; ++r) position.data<int32_t>()[r] = 5 * r;
  }
  void rotate(Grad to, const Tensor& from, bool inverse) {
    backend.position().rope(
        {.y = to, .x = from, .position = position, .table = table, .spec = spec, .inverse = inverse});
  }
  static std::vector<float> values(const Tensor& t) { return {t.data<float>(), t.data<float>() + t.count()}; }

  CpuBackend backend;
  HostMemory memory{1 << 20};
  Arena arena{memory.data(), memory.bytes(), Arena::Guards::on};
  Tensor x, y, position, table;
  RopeSpec spec{.heads = 3, .head_dim = 10, .rotary_dim = 6};
};

TEST_F(RopeKernel, InPlaceIsTheSame) {
  rotate({y, Write::overwrite}, x, false);
  rotate({x, Write::overwrite}, x, false);
  EXPECT_EQ(values(x), values(y));
}

TEST_F(RopeKernel, InverseUndoes) {
  const auto before = values(x);
  rotate({y, Write::overwrite}, x, false);
  EXPECT_NE(values(y), before);
  rotate({y, Write::overwrite}, y, true);
  for (size_t i = 0; i < before.size(); ++i) EXPECT_NEAR(y.data<float>()[i], before[i], 1e-6);
}

TEST_F(RopeKernel, Accumulates) {
  rotate({y, Write::overwrite}, x, false);
  auto expected = values(y);
  for (float& v : expected) v += v;
  rotate({y, Write::accumulate}, x, false);
  EXPECT_EQ(values(y), expected);
}

// What somebody else holds (the caller, or the tape for a backward) is never overwritten.
TEST_F(RopeKernel, ReusesMemoryThatNobodyElseHolds) {
  Tape tape(backend, nullptr, &test_state());
  const auto before = values(x);
  Tensor turned = rope(tape, x, position, table, spec);
  EXPECT_NE(turned.raw(), x.raw());
  EXPECT_EQ(values(x), before);

  const std::byte* memory_of_turned = turned.raw();
  const Tensor again = rope(tape, std::move(turned), position, table, spec);
  EXPECT_EQ(again.raw(), memory_of_turned);
}

TEST_F(RopeKernel, RefusesPositionsOutsideTheTable) {
  position.data<int32_t>()[6] = places;
  EXPECT_THROW(rotate({y, Write::overwrite}, x, false), DataError);
  position.data<int32_t>()[6] = -1;
  EXPECT_THROW(rotate({y, Write::overwrite}, x, false), DataError);
}

}  // namespace
}  // namespace mixtape
