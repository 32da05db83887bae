// What of cuDNN's attention needs no GPU: what it takes, the lengths that it is told, and what a build without it says.
#include "cuda/cudnn.h"

#include "cuda/row_lengths.h"
#include "tests/cuda/device.h"

namespace mixtape {
namespace {

TEST(Cudnn, ABuildWithoutItSaysWhatToInstall) {
  emulator::set_seed(1);
  try {
    CudaBackend backend(CudaOptions{.cudnn = true});
    FAIL() << "it was made";
  } catch (const ConfigError& e) {
    EXPECT_NE(std::string(e.what()).find("pip install nvidia-cudnn-frontend"), std::string::npos) << e.what();
  }
}

TEST(Cudnn, TakesPlainAttentionOfWholeRows) {
  Device d = emulated();
  const Tensor q = d.make({64, 3 * 32}, DType::bf16), k = d.make({64, 32}, DType::bf16),
               lse = d.make({3, 64}, DType::f32);
  const AttentionSpec plain{.n_heads = 3, .n_kv_heads = 1, .head_dim = 32, .scale = 1, .max_q_len = 16};
  const auto takes = [&](auto change) {
    AttentionSpec spec = plain;
    change(spec);
    return cuda::cudnn_takes(spec, q, k, lse);
  };
  EXPECT_TRUE(takes([](AttentionSpec&) {}));
  EXPECT_TRUE(takes([](AttentionSpec& s) { s.causal = false, s.max_k_len = 16; }));
  EXPECT_FALSE(takes([](AttentionSpec& s) { s.max_q_len = 24; })) << "64 rows are no whole number of these";
  EXPECT_FALSE(takes([](AttentionSpec& s) { s.max_q_len = 0; }));
  EXPECT_FALSE(takes([](AttentionSpec& s) { s.max_k_len = 32; })) << "as many sequences of keys as of queries";
  EXPECT_FALSE(takes([](AttentionSpec& s) { s.window = 8; }));
  EXPECT_FALSE(takes([](AttentionSpec& s) { s.dropout_threshold = 26; }));
  EXPECT_FALSE(takes([](AttentionSpec& s) { s.relative_buckets = 32; }));
  EXPECT_FALSE(takes([](AttentionSpec& s) { s.head_dim = 36; }));
  EXPECT_FALSE(takes([](AttentionSpec& s) { s.head_dim = 256; }));
  EXPECT_FALSE(cuda::cudnn_takes(plain, q, k, {})) << "nothing follows: generation, or validation";
  const Tensor wide = d.make({64, 3 * 32}, DType::f32), narrow_k = d.make({64, 32}, DType::f32);
  EXPECT_FALSE(cuda::cudnn_takes(plain, wide, narrow_k, lse));
  const Tensor odd = d.make({64, 100}, DType::bf16);
  EXPECT_FALSE(cuda::cudnn_takes(plain, odd.columns(0, 96), k, lse)) << "rows that are not 16 bytes apart";
  // Cross-attention: 4 sequences of 16 queries over 4 of 8 keys.
  const Tensor memory = d.make({32, 32}, DType::bf16);
  AttentionSpec cross = plain;
  cross.max_k_len = 8;
  EXPECT_FALSE(cuda::cudnn_takes(cross, q, memory, lse)) << "causal, of two lengths";
  cross.causal = false;
  EXPECT_TRUE(cuda::cudnn_takes(cross, q, memory, lse));
  EXPECT_EQ(cuda::row_batch(cross, q, memory).sequences, 4);
}

class RowsOf : public testing::Test {
 protected:
  // Four rows of up to 16 queries and 8 keys.
  std::pair<std::vector<int32_t>, std::vector<int32_t>> lengths(const std::vector<int32_t>& segments, int32_t count) {
    auto& backend = static_cast<CudaBackend&>(*d);
    const Tensor queries = d.make({4}, DType::i32), keys = d.make({4}, DType::i32);
    cuda::row_lengths(backend, {queries, keys, 16, 8}, d.upload(segments, {int64_t(segments.size() / 4), 4}),
                      d.upload(std::vector<int32_t>{count}));
    return {d.values<int32_t>(queries), d.values<int32_t>(keys)};
  }
  Device d = emulated();
};

TEST_F(RowsOf, SegmentsThatBeginWithARowHaveALength) {
  const auto [queries, keys] = lengths({32, 16, 16, 3, 0, 5, 0, 8, 9, 9, 9, 9}, 2);  // the third is not real
  EXPECT_EQ(queries, (std::vector<int32_t>{5, 0, 16, 0}));
  EXPECT_EQ(keys, (std::vector<int32_t>{8, 0, 3, 0}));
}

TEST_F(RowsOf, OtherSegmentsEndTheRun) {
  EXPECT_THROW(lengths({0, 5, 0, 5, 5, 11, 5, 3}, 2), Error) << "two documents in a row";
  EXPECT_THROW(lengths({16, 5, 0, 5}, 1), Error) << "the keys of another row";
  EXPECT_THROW(lengths({64, 5, 32, 5}, 1), Error) << "a fifth row";
  EXPECT_THROW(lengths({0, 17, 0, 5}, 1), Error);
  EXPECT_THROW(lengths({0, 5, 0, 9}, 1), Error);
}

TEST_F(RowsOf, WhatIsBehindAnEndIsZeroedAndNothingElse) {
  for (const int64_t cols : {16, 5}) {
    const Tensor x = d.normal({8, cols + 8}, DType::bf16, 1), view = x.columns(0, cols);
    auto expected = d.values<bf16>(x);
    const std::vector<int32_t> ends{3, 0};
    for (int64_t row = 0; row < 8; ++row)
      for (int64_t c = 0; c < cols; ++c)
        if (row % 4 >= ends[size_t(row / 4)]) expected[size_t(row * (cols + 8) + c)] = bf16(0.f);
    cuda::clear_row_ends(static_cast<CudaBackend&>(*d), view, d.upload(ends), 4);
    const auto got = d.values<bf16>(x);
    for (size_t i = 0; i < got.size(); ++i) ASSERT_EQ(got[i].code, expected[i].code) << i;
  }
}

}  // namespace
}  // namespace mixtape
