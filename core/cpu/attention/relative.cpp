#include "core/cpu/attention/relative.h"

#include "core/base/dispatch.h"

namespace mixtape::flash {
namespace {

constexpr int64_t most_short_tiles = 64;

}  // namespace

RelativeWorkspace::RelativeWorkspace(const Backend& backend, const AttentionSpec& spec, int64_t rows) {
  if (spec.relative_buckets == 0) return;
  reach = std::min(spec.relative_distance, rows);
  const int64_t width = RelativeBias{.reach = reach}.width();
  values = backend.workspace({spec.n_heads, width}, DType::f32);
  buckets = backend.workspace({width}, DType::i32);
}

RelativeBias RelativeWorkspace::spread(const Tensor& table, const AttentionSpec& spec) const {
  if (!values) return {};
  constexpr float log2_e = 1.44269504f;
  const RelativeBias bias{values.data<float>(), buckets.data<int32_t>(), reach};
  for (int64_t d = 0; d < bias.width(); ++d)
    buckets.data<int32_t>()[d] = int32_t(relative_bucket(bias.at(0) - d, spec));
  dispatch<float, fp16, bf16>(table.dtype(), "attention", [&]<class T>() {
    for (int64_t h = 0; h < spec.n_heads; ++h)
      for (int64_t d = 0; d < bias.width(); ++d)
        values.data<float>()[h * bias.width() + d] =
            float(table.data<T>()[bias.buckets[d] * table.row_stride() + h]) * log2_e;
  });
  return bias;
}

Tensor relative_sums(const Backend& backend, const AttentionSpec& spec, int64_t rows_q, int64_t segments) {
  const int64_t tiles = (rows_q + backward_queries - 1) / backward_queries + std::min(segments, most_short_tiles);
  return backend.workspace({tiles, spec.relative_buckets * spec.n_heads}, DType::f32);
}

}  // namespace mixtape::flash
