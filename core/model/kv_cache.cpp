#include "core/model/kv_cache.h"

#include "core/ops/cast.h"

namespace mixtape {

KvCache::KvCache(const ModelSpec& spec, int64_t slots, int64_t capacity, int64_t memory_capacity, Backend& backend,
                 DType dtype, TensorParallel parallel)
    : backend_(backend),
      capacity_(capacity),
      memory_capacity_(memory_capacity),
      lengths_(slots, 0),
      memory_lengths_(slots, 0) {
  const int64_t width = parallel.part(spec.kv_heads()).count * spec.head_width();
  const int64_t layers = memory_capacity ? spec.decoder_layers() : spec.n_layers;
  for (int64_t layer = 0; layer < layers; ++layer) {
    keys_.push_back(backend.make({slots * capacity, width}, dtype));
    values_.push_back(backend.make({slots * capacity, width}, dtype));
    if (memory_capacity) memory_.push_back(backend.make({slots * memory_capacity, 2 * width}, dtype));
  }
  segments_ = backend.make({slots, 4}, DType::i32, Category::batch);
  if (memory_capacity) memory_segments_ = backend.make({slots, 4}, DType::i32, Category::batch);
  n_segments_ = backend.make({1}, DType::i32, Category::batch);
}

void KvCache::begin(const std::vector<int>& slots, const std::vector<int64_t>& new_tokens) {
  active_ = slots;
  new_tokens_ = new_tokens;
  std::vector<int32_t> table(segments_.count(), 0), of_memory(segments_.count(), 0);
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
    of_memory[4 * i] = int32_t(row);
    of_memory[4 * i + 1] = int32_t(new_tokens[i]);
    of_memory[4 * i + 2] = int32_t(slots[i] * memory_capacity_);
    of_memory[4 * i + 3] = int32_t(memory_lengths_[slots[i]]);
    row += new_tokens[i];
  }
  const int32_t count = int32_t(slots.size());
  backend_.copy_from_host(segments_, table.data());
  if (memory_segments_) backend_.copy_from_host(memory_segments_, of_memory.data());
  backend_.copy_from_host(n_segments_, &count);
}

void KvCache::commit() {
  for (size_t i = 0; i < active_.size(); ++i) lengths_[active_[i]] += new_tokens_[i];
}

Tensor KvCache::attend(Tape& tape, int64_t layer, const Tensor& qkv, const Tensor& bias, AttentionSpec spec) {
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
  const bool relative = spec.relative_buckets > 0;
  const Tensor out = tape.backend().make({qkv.rows(), q_cols}, qkv.dtype());
  tape.backend().attention().attention({.out = out,
                                        .q = qkv.columns(0, q_cols),
                                        .k = keys_[layer],
                                        .v = values_[layer],
                                        .segments = segments_,
                                        .n_segments = n_segments_,
                                        .slopes = relative ? Tensor() : bias,
                                        .relative = relative ? bias : Tensor(),
                                        .spec = spec,
                                        .state = tape.state()});
  return out;
}

void KvCache::remember(int slot, int64_t layer, const Tensor& kv) {
  if (kv.rows() > memory_capacity_)
    throw Error("generate: {} tokens to read, room for {}; shorten the input", kv.rows(), memory_capacity_);
  memory_lengths_[slot] = kv.rows();
  backend_.cast().convert({.y = {memory_[layer].slice(slot * memory_capacity_, kv.rows()), Write::overwrite}, .x = kv});
}

Tensor KvCache::attend_memory(Tape& tape, int64_t layer, const Tensor& q, AttentionSpec spec) {
  const int64_t width = spec.n_kv_heads * spec.head_dim;
  spec.dropout_threshold = 0;
  spec.max_k_len = memory_capacity_;
  const Tensor out = tape.backend().make(q.shape(), q.dtype());
  tape.backend().attention().attention({.out = out,
                                        .q = q,
                                        .k = memory_[layer].columns(0, width),
                                        .v = memory_[layer].columns(width, width),
                                        .segments = memory_segments_,
                                        .n_segments = n_segments_,
                                        .spec = spec,
                                        .state = tape.state()});
  return out;
}

}  // namespace mixtape
