#include "core/model/kv_cache.h"

#include "core/ops/cast.h"

namespace mixtape {

KvCache::KvCache(const ModelSpec& spec, int64_t slots, int64_t capacity, DType dtype, Backend& backend)
    : backend_(backend), capacity_(capacity), lengths_(slots, 0) {
  const Shape shape{slots * capacity, spec.kv_heads() * spec.head_width()};
  for (int64_t layer = 0; layer < spec.n_layers; ++layer) {
    keys_.push_back(backend.make(shape, dtype));
    values_.push_back(backend.make(shape, dtype));
  }
  segments_ = backend.make({slots, 4}, DType::i32, Category::batch);
  n_segments_ = backend.make({1}, DType::i32, Category::batch);
}

void KvCache::begin(const std::vector<int>& slots, const std::vector<int64_t>& new_tokens) {
  active_ = slots;
  new_tokens_ = new_tokens;
  std::vector<int32_t> table(segments_.count(), 0);
  int64_t row = 0;
  for (size_t i = 0; i < slots.size(); ++i) {
    const int64_t length = lengths_[slots[i]] + new_tokens[i];
    if (length > capacity_)
      throw Error("generate: {} tokens do not fit the cache's {}; shorten the prompt or max_new_tokens", length,
                  capacity_);
    table[4 * i] = int32_t(row);
    table[4 * i + 1] = int32_t(new_tokens[i]);
    table[4 * i + 2] = int32_t(slots[i] * capacity_);
    table[4 * i + 3] = int32_t(length);
    row += new_tokens[i];
  }
  const int32_t count = int32_t(slots.size());
  backend_.copy_from_host(segments_, table.data());
  backend_.copy_from_host(n_segments_, &count);
}

void KvCache::commit() {
  for (size_t i = 0; i < active_.size(); ++i) lengths_[active_[i]] += new_tokens_[i];
}

Tensor KvCache::attend(Tape& tape, int64_t layer, const Tensor& qkv, const Tensor& slopes, AttentionSpec spec) {
  const int64_t q_cols = spec.n_heads * spec.head_dim, kv_cols = spec.n_kv_heads * spec.head_dim;
  const Tensor new_keys = qkv.columns(q_cols, kv_cols), new_values = qkv.columns(q_cols + kv_cols, kv_cols);
  int64_t row = 0;
  for (size_t i = 0; i < active_.size(); ++i) {
    const int64_t at = active_[i] * capacity_ + lengths_[active_[i]], n = new_tokens_[i];
    for (auto [cache, fresh] : {std::pair{&keys_[layer], &new_keys}, {&values_[layer], &new_values}})
      tape.backend().cast().convert({.y = {cache->slice(at, n), Write::overwrite}, .x = fresh->slice(row, n)});
    row += n;
  }
  spec.dropout_threshold = 0;
  const Tensor out = tape.backend().make({qkv.rows(), q_cols}, qkv.dtype());
  tape.backend().attention().attention({.out = out,
                                        .q = qkv.columns(0, q_cols),
                                        .k = keys_[layer],
                                        .v = values_[layer],
                                        .segments = segments_,
                                        .n_segments = n_segments_,
                                        .slopes = slopes,
                                        .spec = spec,
                                        .state = tape.state()});
  return out;
}

}  // namespace mixtape
