// What the harness does not show of lookups and their gradients on a GPU: ids that are not there, and runs of every
// length.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "core/ops/embedding.h"
#include "tests/cuda/device.h"

namespace mixtape {
namespace {

// An id beyond a table ends the kernel instead of reading there.
TEST(CudaEmbedding, IdsOutsideTheirTablesAreNotRead) {
  Device d = emulated();
  const Tensor table = d.normal({7, 5}, DType::f32, 1), y = d.make({2, 5}, DType::f32);
  const auto look_up = [&](std::vector<int32_t> ids) {
    d->embedding().embedding({.y = y, .ids = {d.upload(ids), {}, {}}, .tables = {table, {}, {}}, .spec = {}});
  };
  EXPECT_NO_THROW(look_up({6, -1}));
  EXPECT_THROW(look_up({6, 7}), Error);
  const auto gather = [&](std::vector<int32_t> index) {
    d->embedding().gather_rows({.y = y, .x = table, .index = d.upload(index)});
  };
  EXPECT_NO_THROW(gather({6, -1}));
  EXPECT_THROW(gather({6, 7}), Error);
}

// The padding token gets no gradient but its position does; rows without a token give none at all.
TEST(CudaEmbedding, GradientsOfPadding) {
  Device d = emulated();
  const std::vector<float> nothing(35, NAN);
  const Tensor dy = d.upload(std::vector<float>(20, 1), {4, 5}), dtokens = d.upload(nothing, {7, 5}),
               dpositions = d.upload(nothing, {7, 5});
  d->embedding().embedding_backward(
      {.dtokens = {dtokens, Write::overwrite},
       .dpositions = {dpositions, Write::overwrite},
       .dy = dy,
       .ids = {d.upload(std::vector<int32_t>{1, 4, 4, -1}), d.upload(std::vector<int32_t>{0, 1, 2, 99}), {}},
       .spec = {.position_offset = 2, .pad_id = 1}});
  for (size_t row = 0; row < 7; ++row) {
    EXPECT_EQ(d.values<float>(dtokens)[row * 5], row == 4 ? 2.f : 0.f) << row;
    EXPECT_EQ(d.values<float>(dpositions)[row * 5 + 4], row >= 2 && row <= 4 ? 1.f : 0.f) << row;
  }
}

// Where ranks share out the tokens each has its own rows, and the sum over ranks is the lookup and the gradient.
TEST(CudaEmbedding, PartsOfATableAddUp) {
  Device d = emulated();
  const std::vector<int32_t> ids{0, 3, 6, -1, 2, 3};
  const EmbeddingIds at{d.upload(ids), d.upload(std::vector<int32_t>{0, 1, 2, 3, 4, 5}), {}};
  const Tensor table = d.normal({7, 5}, DType::f32, 1), positions = d.normal({6, 5}, DType::f32, 2),
               dy = d.normal({6, 5}, DType::f32, 3);
  const auto of = [&](int64_t first, int64_t count) {
    const EmbeddingSpec spec{.first_token = first, .vocabulary = 7};
    const Tensor y = d.make({6, 5}, DType::f32), dtokens = d.make({count, 5}, DType::f32);
    d->embedding().embedding({.y = y, .ids = at, .tables = {table.slice(first, count), positions, {}}, .spec = spec});
    d->embedding().embedding_backward({.dtokens = {dtokens, Write::overwrite}, .dy = dy, .ids = at, .spec = spec});
    return std::pair(d.values<float>(y), d.values<float>(dtokens));
  };
  const auto all = of(0, 7), low = of(0, 3), high = of(3, 4);
  for (size_t i = 0; i < 30; ++i) EXPECT_EQ(low.first[i] + high.first[i], all.first[i]) << i;
  std::vector<float> both = low.second;
  both.insert(both.end(), high.second.begin(), high.second.end());
  EXPECT_EQ(both, all.second);
}

// Gradients of a table by random rows, on the CPU, which adds in the order of the rows, and on the emulated GPU.
struct TableGradients {
  std::vector<float> cpu, gpu;
};
TableGradients table_gradients(const std::vector<int32_t>& ids, int64_t table_rows, int64_t cols, Write write) {
  TableGradients results;
  for (const bool on_gpu : {false, true}) {
    Device d = on_gpu ? emulated(5) : cpu();
    const Tensor dy = d.normal({int64_t(ids.size()), cols}, DType::f32, 1),
                 dtokens = d.normal({table_rows, cols}, DType::f32, 2);
    d->embedding().embedding_backward(
        {.dtokens = {dtokens, write}, .dy = dy, .ids = {d.upload(ids), {}, {}}, .spec = {}});
    (on_gpu ? results.gpu : results.cpu) = d.values<float>(dtokens);
  }
  return results;
}

// More rows than one tile of the sort, ids of three bytes. Runs that no block has to share are sums in the same order.
TEST(CudaEmbedding, GradientsOfALargeVocabulary) {
  constexpr int32_t rows = 1500, vocabulary = 70000;
  std::vector<int32_t> ids;
  for (int32_t r = 0; r < rows; ++r)
    ids.push_back(r % 101 == 0 ? 65537 : int32_t(uint32_t(r * 2654435761u) % vocabulary));
  // A piece of the sorted rows that begins within a run cuts it in two.
  std::vector<int32_t> sorted = ids;
  std::sort(sorted.begin(), sorted.end());
  const auto cut = [&](int32_t id) {
    for (size_t i = 64; i < sorted.size(); i += 64)
      if (sorted[i] == id && sorted[i - 1] == id) return true;
    return false;
  };
  const auto [cpu, gpu] = table_gradients(ids, vocabulary, 4, Write::overwrite);
  int whole_runs = 0;
  for (size_t i = 0; i < cpu.size(); ++i) {
    const bool exact = !cut(int32_t(i / 4));
    whole_runs += exact && cpu[i] != 0;
    if (exact)
      ASSERT_EQ(gpu[i], cpu[i]) << i;
    else
      ASSERT_NEAR(gpu[i], cpu[i], 1e-5) << i;
  }
  EXPECT_GT(whole_runs, 1000);
}

// As of token types: runs of hundreds of rows, which begin and end within a piece or where one does.
TEST(CudaEmbedding, GradientsOfAFewLongRuns) {
  for (const std::vector<int32_t>& lengths :
       {std::vector<int32_t>{300}, {64, 128, 1}, {63, 65, 64, 2}, {1, 64, 64}, {10, 0, 200, 50}, {128}, {65}})
    for (const Write write : {Write::overwrite, Write::accumulate}) {
      std::vector<int32_t> ids;
      for (size_t i = 0; i < lengths.size(); ++i) ids.insert(ids.end(), size_t(lengths[i]), int32_t(i));
      const auto [cpu, gpu] = table_gradients(ids, int64_t(lengths.size()), 12, write);
      for (size_t i = 0; i < cpu.size(); ++i) ASSERT_NEAR(gpu[i], cpu[i], 2e-5) << lengths[0] << ": " << i;
    }
}

}  // namespace
}  // namespace mixtape
