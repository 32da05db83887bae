#include "core/ops/embedding.h"

#include "tests/support/op_test.h"

namespace mixtape {
namespace {

constexpr EmbeddingSpec spec{.scale = 1.5f, .position_offset = 2};
constexpr int64_t vocabulary = 7, places = 9;

// Rows repeat tokens, and every fifth one is padding.
std::vector<int64_t> ids_of(int64_t rows) {
  std::vector<int64_t> ids;
  for (int64_t r = 0; r < rows; ++r) ids.push_back(r % 5 == 3 ? -1 : (r * r + 1) % vocabulary);
  return ids;
}
std::vector<int64_t> positions_of(int64_t rows) {
  std::vector<int64_t> positions;
  for (int64_t r = 0; r < rows; ++r) positions.push_back(r % (places - spec.position_offset));
  return positions;
}

Array reference(const Arrays& in, Sizes s, bool with_positions, const EmbeddingSpec& spec) {
  Array y({s[0], s[1]});
  for (int64_t r = 0; r < s[0]; ++r) {
    if (in[0][r] < 0) continue;
    for (int64_t c = 0; c < s[1]; ++c) {
      y(r, c) = spec.scale * in[2](int64_t(in[0][r]), c);
      if (with_positions) y(r, c) += in[3](int64_t(in[1][r]) + spec.position_offset, c);
    }
  }
  return y;
}

const OpTest embedding_test{
    .name = "embedding",
    .sizes = {{1, 1}, {13, 37}, {40, 128}, {6, 1029}},
    .inputs =
        [](Sizes s) {
          return Inputs{integers({s[0]}, ids_of(s[0])), integers({s[0]}, positions_of(s[0])),
                        normal_parameter({vocabulary, s[1]}), normal_parameter({places, s[1]})};
        },
    .op = [](Tape& tape, const Tensors& in,
             Sizes) { return Tensors{embedding(tape, in[0], in[1], in[2], in[3], spec)}; },
    .reference = [](const Arrays& in, Sizes s) { return Arrays{reference(in, s, true, spec)}; },
    .reduction = [](Sizes s) { return s[0]; },
};
MIXTAPE_OP_TEST(embedding_test);

const OpTest token_embedding_test{
    .name = "embedding without positions",
    .sizes = {{13, 37}},
    .inputs =
        [](Sizes s) {
          return Inputs{integers({s[0]}, ids_of(s[0])), absent(), normal_parameter({vocabulary, s[1]}), absent()};
        },
    .op = [](Tape& tape, const Tensors& in, Sizes) { return Tensors{embedding(tape, in[0], {}, in[2], {}, {})}; },
    .reference = [](const Arrays& in, Sizes s) { return Arrays{reference(in, s, false, {})}; },
    .reduction = [](Sizes s) { return s[0]; },
    .bench_sizes = {{1024, 768}},
    .bytes = [](Sizes s, int element) { return 5.0 * s[0] * s[1] * element; },
};
MIXTAPE_OP_TEST(token_embedding_test);

class Embedding : public testing::Test {
 protected:
  Embedding() { backend.bind(arena); }
  Tensor floats(Shape shape, float value) {
    const Tensor t = backend.make(shape, DType::f32);
    std::fill_n(t.data<float>(), t.count(), value);
    return t;
  }
  Tensor ints(std::vector<int32_t> values) {
    const Tensor t = backend.make({int64_t(values.size())}, DType::i32);
    backend.copy_from_host(t, values.data());
    return t;
  }
  CpuBackend backend;
  HostMemory memory{1 << 20};
  Arena arena{memory.data(), memory.bytes(), Arena::Guards::on};
};

TEST_F(Embedding, ThePaddingTokenGetsNoGradientButItsPositionDoes) {
  const Tensor dy = floats({3, 5}, 1), dtokens = floats({vocabulary, 5}, NAN), dpositions = floats({places, 5}, NAN);
  backend.embedding().embedding_backward({.dtokens = {dtokens, Write::overwrite},
                                          .dpositions = {dpositions, Write::overwrite},
                                          .dy = dy,
                                          .ids = ints({1, 4, 4}),
                                          .position = ints({0, 1, 2}),
                                          .spec = {.position_offset = 2, .pad_id = 1}});
  for (int64_t row = 0; row < vocabulary; ++row)
    for (int64_t c = 0; c < 5; ++c) EXPECT_EQ(dtokens.data<float>()[row * 5 + c], row == 4 ? 2.f : 0.f) << row;
  for (int64_t row = 0; row < places; ++row)
    EXPECT_EQ(dpositions.data<float>()[row * 5], row >= 2 && row <= 4 ? 1.f : 0.f) << row;
}

TEST_F(Embedding, RefusesWhatLiesOutsideTheTables) {
  const Tensor tokens = floats({vocabulary, 5}, 1), positions = floats({places, 5}, 1), y = floats({2, 5}, 0);
  const auto look_up = [&](std::vector<int32_t> ids, std::vector<int32_t> position) {
    backend.embedding().embedding({.y = y,
                                   .ids = ints(ids),
                                   .position = ints(position),
                                   .token_table = tokens,
                                   .position_table = positions,
                                   .spec = spec});
  };
  EXPECT_NO_THROW(look_up({0, 6}, {0, 6}));
  EXPECT_THROW(look_up({0, 7}, {0, 6}), DataError);
  EXPECT_THROW(look_up({0, 6}, {0, 7}), DataError);
  EXPECT_THROW(look_up({0, 6}, {-3, 0}), DataError);
  EXPECT_NO_THROW(look_up({0, -1}, {0, 99}));  // padding: its position is not read
}

}  // namespace
}  // namespace mixtape
