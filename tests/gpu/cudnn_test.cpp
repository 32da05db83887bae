// cuDNN's attention on a GPU beside Mixtape's kernels, whose results tests/ops holds to the definition. Skipped where
// the build is without it.
#include <gtest/gtest.h>

#include <cmath>
#include <memory>

#include "core/base/philox.h"
#include "core/ops/attention.h"
#include "cuda/backend.h"

namespace mixtape {
namespace {

struct Case {
  int64_t sequences, queries, keys, heads, kv_heads, width;
  bool causal;
  std::vector<int32_t> lengths;  // of the queries of each sequence, and of its keys if those are as many
};

// The result and the gradients, one after another, in float.
std::vector<float> run(const Case& c, bool cudnn) {
  CudaBackend backend(CudaOptions{.cudnn = cudnn});
  const int64_t capacity = int64_t(256) << 20;
  Arena arena(backend.reserve(capacity), capacity);
  backend.bind(arena);
  arena.set_context("test");
  const auto normals = [&](Shape shape, uint64_t seed) {
    std::vector<bf16> values(size_t(shape.count()));
    for (size_t i = 0; i < values.size(); ++i) {
      const auto bits = philox(philox_key(seed), i, 0, Purpose::test);
      values[i] = bf16(normal(bits[0], bits[1]));
    }
    const Tensor t = backend.make(shape, DType::bf16);
    backend.copy_from_host(t, values.data());
    return t;
  };
  const int64_t rows_q = c.sequences * c.queries, rows_k = c.sequences * c.keys;
  const Tensor q = normals({rows_q, c.heads * c.width}, 1), k = normals({rows_k, c.kv_heads * c.width}, 2),
               v = normals({rows_k, c.kv_heads * c.width}, 3), dout = normals(q.shape(), 4);
  std::vector<int32_t> table;
  for (int64_t s = 0; s < c.sequences; ++s) {
    const int32_t length = c.lengths[size_t(s)];
    table.insert(table.end(),
                 {int32_t(s * c.queries), length, int32_t(s * c.keys), c.queries == c.keys ? length : int32_t(c.keys)});
  }
  const Tensor segments = backend.make({c.sequences, 4}, DType::i32), count = backend.make({1}, DType::i32);
  const auto n = int32_t(c.sequences);
  backend.copy_from_host(segments, table.data());
  backend.copy_from_host(count, &n);
  const AttentionSpec spec{.n_heads = c.heads,
                           .n_kv_heads = c.kv_heads,
                           .head_dim = c.width,
                           .scale = float(1 / std::sqrt(double(c.width))),
                           .causal = c.causal,
                           .max_q_len = c.queries,
                           .max_k_len = c.keys};
  const Tensor out = backend.make(q.shape(), DType::bf16), lse = backend.make({c.heads, rows_q}, DType::f32);
  const Tensor dq = backend.make(q.shape(), DType::bf16), dk = backend.make(k.shape(), DType::bf16),
               dv = normals(v.shape(), 5);
  backend.attention().attention(
      {.out = out, .lse = lse, .q = q, .k = k, .v = v, .segments = segments, .n_segments = count, .spec = spec});
  backend.attention().attention_backward({.dq = {dq, Write::overwrite},
                                          .dk = {dk, Write::overwrite},
                                          .dv = {dv, Write::accumulate},
                                          .dout = dout,
                                          .out = out,
                                          .lse = lse,
                                          .q = q,
                                          .k = k,
                                          .v = v,
                                          .segments = segments,
                                          .n_segments = count,
                                          .spec = spec});
  std::vector<float> all;
  for (const Tensor& t : {out, dq, dk, dv}) {
    std::vector<bf16> values(size_t(t.count()));
    backend.copy_to_host(values.data(), t);
    for (const bf16 x : values) all.push_back(float(x));
  }
  return all;
}

TEST(GpuCudnn, AttentionIsThatOfTheKernels) {
  try {
    CudaBackend backend(CudaOptions{.cudnn = true});
  } catch (const ConfigError& e) {
    GTEST_SKIP() << e.what();
  }
  for (const Case& c : {Case{2, 256, 256, 4, 4, 64, true, {256, 256}}, Case{3, 128, 128, 8, 2, 128, true, {128, 77, 1}},
                        Case{2, 192, 192, 4, 4, 64, false, {192, 50}}, Case{2, 64, 160, 2, 2, 64, false, {64, 64}}}) {
    const std::vector<float> want = run(c, false), got = run(c, true);
    ASSERT_EQ(got.size(), want.size());
    for (size_t i = 0; i < want.size(); ++i)
      ASSERT_NEAR(got[i], want[i], 0.02 + 0.02 * std::abs(want[i])) << i << " of " << c.queries << " queries";
    EXPECT_EQ(run(c, true), got) << "two runs, the same bits";
  }
}

}  // namespace
}  // namespace mixtape
