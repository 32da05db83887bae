#include "core/ops/embedding.h"

#include "tests/support/op_test.h"

namespace mixtape {
namespace {

constexpr EmbeddingSpec spec{.scale = 1.5f, .position_offset = 2};
constexpr int64_t vocabulary = 7, table_places = 9, kinds = 2;

// Rows repeat tokens, and every fifth one is padding.
std::vector<int64_t> ids_of(int64_t rows) {
  std::vector<int64_t> ids;
  for (int64_t r = 0; r < rows; ++r) ids.push_back(r % 5 == 3 ? -1 : (r * r + 1) % vocabulary);
  return ids;
}
std::vector<int64_t> embedding_positions(int64_t rows) {
  std::vector<int64_t> positions;
  for (int64_t r = 0; r < rows; ++r) positions.push_back(r % (table_places - spec.position_offset));
  return positions;
}

std::vector<int64_t> types_of(int64_t rows) {
  std::vector<int64_t> types;
  for (int64_t r = 0; r < rows; ++r) types.push_back(r * r % 3 % kinds);
  return types;
}

// Inputs in the order of EmbeddingIds and EmbeddingTables; absent ones add nothing.
Array embedding_reference(const Arrays& in, Sizes s, const EmbeddingSpec& spec) {
  const Array &ids = in[0], &position = in[1], &type = in[2];
  Array y({s[0], s[1]});
  for (int64_t r = 0; r < s[0]; ++r) {
    if (ids[r] < 0) continue;
    for (int64_t c = 0; c < s[1]; ++c) {
      y(r, c) = spec.scale * in[3](int64_t(ids[r]), c);
      if (in[4].count()) y(r, c) += in[4](int64_t(position[r]) + spec.position_offset, c);
      if (in[5].count()) y(r, c) += in[5](type.count() ? int64_t(type[r]) : 0, c);
    }
  }
  return y;
}

Tensors embed(Tape& tape, const Tensors& in, const EmbeddingSpec& spec) {
  return {embedding(tape, {in[0], in[1], in[2]}, {in[3], in[4], in[5]}, spec)};
}

const OpTest embedding_test{
    .name = "embedding",
    .sizes = {{1, 1}, {13, 37}, {40, 128}, {6, 1029}},
    .inputs =
        [](Sizes s) {
          return Inputs{integers({s[0]}, ids_of(s[0])),         integers({s[0]}, embedding_positions(s[0])),
                        integers({s[0]}, types_of(s[0])),       normal_parameter({vocabulary, s[1]}),
                        normal_parameter({table_places, s[1]}), normal_parameter({kinds, s[1]})};
        },
    .op = [](Tape& tape, const Tensors& in, Sizes) { return embed(tape, in, spec); },
    .reference = [](const Arrays& in, Sizes s) { return Arrays{embedding_reference(in, s, spec)}; },
    .reduction = [](Sizes s) { return s[0]; },
};
MIXTAPE_OP_TEST(embedding_test);

const OpTest token_embedding_test{
    .name = "embedding without positions",
    .sizes = {{13, 37}},
    .inputs =
        [](Sizes s) {
          return Inputs{integers({s[0]}, ids_of(s[0])),       absent(), absent(),
                        normal_parameter({vocabulary, s[1]}), absent(), absent()};
        },
    .op = [](Tape& tape, const Tensors& in, Sizes) { return embed(tape, in, {}); },
    .reference = [](const Arrays& in, Sizes s) { return Arrays{embedding_reference(in, s, {})}; },
    .reduction = [](Sizes s) { return s[0]; },
};
MIXTAPE_OP_TEST(token_embedding_test);

// Positions from a fixed table in float32, and one type for all rows.
const OpTest sinusoidal_embedding_test{
    .name = "embedding with sinusoidal positions",
    .sizes = {{1, 1}, {13, 37}, {9, 128}},
    .inputs =
        [](Sizes s) {
          std::vector<float> table(table_places * s[1]);
          sinusoidal_positions(table.data(), table_places, s[1]);
          Array fixed({table_places, s[1]});
          for (int64_t i = 0; i < fixed.count(); ++i) fixed[i] = table[i];
          return Inputs{integers({s[0]}, ids_of(s[0])),
                        integers({s[0]}, embedding_positions(s[0])),
                        absent(),
                        normal_parameter({vocabulary, s[1]}),
                        constant(fixed),
                        normal_parameter({1, s[1]})};
        },
    .op = [](Tape& tape, const Tensors& in, Sizes) { return embed(tape, in, spec); },
    .reference = [](const Arrays& in, Sizes s) { return Arrays{embedding_reference(in, s, spec)}; },
    .reduction = [](Sizes s) { return s[0]; },
};
MIXTAPE_OP_TEST(sinusoidal_embedding_test);

TEST(SinusoidalPositions, AreThoseOfThePaper) {
  constexpr int64_t d = 7;
  float table[4 * d];
  sinusoidal_positions(table, 4, d);
  for (int64_t p = 0; p < 4; ++p)
    for (int64_t i = 0; 2 * i < d; ++i) {
      const double angle = double(p) / std::pow(10000.0, 2.0 * double(i) / d);
      EXPECT_NEAR(table[p * d + 2 * i], std::sin(angle), 1e-7);
      if (2 * i + 1 < d) {
        EXPECT_NEAR(table[p * d + 2 * i + 1], std::cos(angle), 1e-7);
      }
    }
  EXPECT_NEAR(table[2 * d], 0.909297427, 1e-7);       // sin 2
  EXPECT_NEAR(table[3 * d + 1], -0.989992497, 1e-7);  // cos 3
}

// Sizes: rows, columns, rows gathered. Some rows are named twice, some indices are negative.
const OpTest gather_rows_test{
    .name = "gather_rows",
    .sizes = {{1, 1, 1}, {11, 37, 9}, {5, 129, 40}, {300, 8, 45}},
    .inputs =
        [](Sizes s) {
          return Inputs{normal({s[0], s[1]}), random_integers({s[2]}, s[0] > 1 ? -2 : 0, s[0])};
        },
    .op = [](Tape& tape, const Tensors& in, Sizes) { return Tensors{gather_rows(tape, in[0], in[1])}; },
    .reference =
        [](const Arrays& in, Sizes s) {
          Array y({s[2], s[1]});
          for (int64_t i = 0; i < s[2]; ++i)
            for (int64_t c = 0; c < s[1]; ++c) y(i, c) = in[1][i] < 0 ? 0 : in[0](int64_t(in[1][i]), c);
          return Arrays{y};
        },
    .reduction = [](Sizes s) { return std::max<int64_t>(s[2], 1); },
    .roundings = 6,  // gradients of rows that are named often are added in the type
};
MIXTAPE_OP_TEST(gather_rows_test);

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
  const Tensor dy = floats({3, 5}, 1), dtokens = floats({vocabulary, 5}, NAN),
               dpositions = floats({table_places, 5}, NAN), dtypes = floats({kinds, 5}, NAN);
  backend.embedding().embedding_backward({.dtokens = {dtokens, Write::overwrite},
                                          .dpositions = {dpositions, Write::overwrite},
                                          .dtypes = {dtypes, Write::overwrite},
                                          .dy = dy,
                                          .ids = {ints({1, 4, 4}), ints({0, 1, 2}), ints({1, 0, 1})},
                                          .spec = {.position_offset = 2, .pad_id = 1}});
  for (int64_t row = 0; row < vocabulary; ++row)
    for (int64_t c = 0; c < 5; ++c) EXPECT_EQ(dtokens.data<float>()[row * 5 + c], row == 4 ? 2.f : 0.f) << row;
  for (int64_t row = 0; row < table_places; ++row)
    EXPECT_EQ(dpositions.data<float>()[row * 5], row >= 2 && row <= 4 ? 1.f : 0.f) << row;
  EXPECT_EQ(dtypes.data<float>()[0], 1);
  EXPECT_EQ(dtypes.data<float>()[5], 2);
}

// Where ranks share out the tokens each has its own rows, and the sum over ranks is the lookup.
TEST_F(Embedding, RanksWithSomeOfTheTokensAddUpToTheLookup) {
  const std::vector<int32_t> tokens{0, 3, 6, -1, 2, 3}, position{0, 1, 2, 3, 4, 5}, type{0, 1, 0, 1, 1, 0};
  const Tensor table = floats({vocabulary, 5}, 0), positions = floats({table_places, 5}, 0),
               types = floats({kinds, 5}, 0);
  for (const Tensor& t : {table, positions, types})
    for (int64_t i = 0; i < t.count(); ++i) t.data<float>()[i] = float(i % 13) - 0.5f;
  const EmbeddingIds ids{ints(tokens), ints(position), ints(type)};
  const auto look_up = [&](int64_t first, int64_t count) {
    const Tensor y = floats({6, 5}, NAN);
    EmbeddingSpec here = spec;
    here.first_token = first, here.vocabulary = vocabulary;
    backend.embedding().embedding(
        {.y = y, .ids = ids, .tables = {table.slice(first, count), positions, types}, .spec = here});
    return y;
  };
  const Tensor all = look_up(0, vocabulary), low = look_up(0, 3), high = look_up(3, 4);
  for (int64_t i = 0; i < all.count(); ++i)
    EXPECT_EQ(low.data<float>()[i] + high.data<float>()[i], all.data<float>()[i]) << i;

  const Tensor dy = floats({6, 5}, 1), dtable = floats({4, 5}, NAN), dpositions = floats({table_places, 5}, NAN);
  backend.embedding().embedding_backward({.dtokens = {dtable, Write::overwrite},
                                          .dpositions = {dpositions, Write::overwrite},
                                          .dy = dy,
                                          .ids = ids,
                                          .spec = {.position_offset = 2, .first_token = 3, .vocabulary = vocabulary}});
  for (const auto& [row, lookups] : {std::pair{0, 2.f}, {1, 0.f}, {2, 0.f}, {3, 1.f}})
    EXPECT_EQ(dtable.data<float>()[row * 5], lookups) << "token " << 3 + row;
  for (int64_t row = 0; row < table_places; ++row)  // of all rows but padding's
    EXPECT_EQ(dpositions.data<float>()[row * 5], row >= 2 && row <= 7 && row != 5 ? 1.f : 0.f) << row;
}

TEST_F(Embedding, RefusesWhatLiesOutsideTheTables) {
  const Tensor tokens = floats({vocabulary, 5}, 1), positions = floats({table_places, 5}, 1),
               types = floats({kinds, 5}, 1), y = floats({2, 5}, 0);
  const auto look_up = [&](std::vector<int32_t> ids, std::vector<int32_t> position, std::vector<int32_t> type) {
    backend.embedding().embedding(
        {.y = y, .ids = {ints(ids), ints(position), ints(type)}, .tables = {tokens, positions, types}, .spec = spec});
  };
  EXPECT_NO_THROW(look_up({0, 6}, {0, 6}, {0, 1}));
  EXPECT_THROW(look_up({0, 7}, {0, 6}, {0, 1}), DataError);
  EXPECT_THROW(look_up({0, 6}, {0, 7}, {0, 1}), DataError);
  EXPECT_THROW(look_up({0, 6}, {-3, 0}, {0, 1}), DataError);
  EXPECT_THROW(look_up({0, 6}, {0, 6}, {0, 2}), DataError);
  EXPECT_THROW(look_up({0, 6}, {0, 6}, {-1, 0}), DataError);
  EXPECT_NO_THROW(look_up({0, -1}, {0, 99}, {0, 99}));  // padding: its position and type are not read
}

TEST_F(Embedding, ATableOfFixedPositionsMayBeFloat32ButALearnedOneMayNot) {
  Tape tape(backend, nullptr, &test_state());
  const Tensor ids = ints({0}), position = ints({0}), positions = floats({table_places, 5}, 1);
  const Tensor tokens = backend.make({vocabulary, 5}, DType::bf16);
  backend.zero(tokens);
  EXPECT_NO_THROW(embedding(tape, {ids, position, {}}, {tokens, positions, {}}, {}));
  EXPECT_THROW(embedding(tape, {ids, position, {}}, {tokens, tape.leaf(positions), {}}, {}), Error);
  EXPECT_THROW(embedding(tape, {ids, {}, {}}, {tokens, positions, {}}, {}), Error);
}

TEST_F(Embedding, GatheringRefusesRowsThatAreNotThere) {
  const Tensor x = floats({3, 5}, 1), y = floats({2, 5}, 0);
  EXPECT_NO_THROW(backend.embedding().gather_rows({.y = y, .x = x, .index = ints({2, -1})}));
  EXPECT_THROW(backend.embedding().gather_rows({.y = y, .x = x, .index = ints({3, -1})}), Error);
}

}  // namespace
}  // namespace mixtape
