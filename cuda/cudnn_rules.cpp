#include "cuda/cudnn.h"

namespace mixtape::cuda {

RowBatch row_batch(const AttentionSpec& spec, const Tensor& q, const Tensor& k) {
  const int64_t queries = spec.max_q_len, keys = spec.max_k_len > 0 ? spec.max_k_len : queries;
  if (queries < 1 || q.rows() % queries || k.rows() % keys || q.rows() / queries != k.rows() / keys)
    return {0, queries, keys};
  return {q.rows() / queries, queries, keys};
}

bool cudnn_takes(const AttentionSpec& spec, const Tensor& q, const Tensor& k, const Tensor& lse) {
  const RowBatch batch = row_batch(spec, q, k);
  const bool plain = spec.window == 0 && spec.dropout_threshold == 0 && spec.relative_buckets == 0;
  const bool narrow = q.dtype() == DType::f16 || q.dtype() == DType::bf16;
  const auto aligned = [](const Tensor& t) {
    return reinterpret_cast<uintptr_t>(t.raw()) % 16 == 0 && t.row_stride() % 8 == 0;
  };
  return lse && plain && narrow && batch.sequences > 0 && (!spec.causal || batch.queries == batch.keys) &&
         spec.head_dim % 8 == 0 && spec.head_dim <= 128 && aligned(q) && aligned(k);
}

}  // namespace mixtape::cuda
