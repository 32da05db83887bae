// Keys and values of the tokens seen so far, for generation.
//
// A slot is one sequence: `capacity` rows of every layer's keys and values. A forward pass feeds each chosen slot a run
// of new tokens; their keys and values are appended, and their queries see everything in the slot up to themselves.
#pragma once

#include <vector>

#include "core/model/spec.h"
#include "core/ops/attention.h"
#include "core/tape.h"

namespace mixtape {

class KvCache {
 public:
  KvCache(const ModelSpec& spec, int64_t slots, int64_t capacity, DType dtype, Backend& backend);

  // Says which slots the next forward pass feeds, and with how many tokens each: rows follow one another in this order.
  void begin(const std::vector<int>& slots, const std::vector<int64_t>& new_tokens);
  // After the forward pass: the new tokens count as seen.
  void commit();

  int64_t length(int slot) const { return lengths_[slot]; }
  int64_t capacity() const { return capacity_; }
  void clear(int slot) { lengths_[slot] = 0; }

  // Appends the keys and values of `qkv` (packed as in core/ops/attention.h) to a layer and attends. Nothing is
  // recorded: generation has no gradient.
  Tensor attend(Tape& tape, int64_t layer, const Tensor& qkv, const Tensor& slopes, AttentionSpec spec);

 private:
  Backend& backend_;
  int64_t capacity_;
  std::vector<Tensor> keys_, values_;  // per layer: [slots * capacity, n_kv_heads * head_dim]
  std::vector<int64_t> lengths_;
  std::vector<int> active_;
  std::vector<int64_t> new_tokens_;
  Tensor segments_, n_segments_;
};

}  // namespace mixtape
