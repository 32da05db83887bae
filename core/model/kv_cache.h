// Keys and values of the tokens seen so far, for generation.
//
// A slot is one sequence: `capacity` rows of every layer's keys and values. A forward pass feeds each chosen slot a run
// of new tokens; their keys and values are appended, and their queries see everything in the slot up to themselves.
//
// After an encoder a slot also has a memory: the keys and values that the decoder's layers make of the encoder's output
// for one sequence, made once and read at every step.
#pragma once

#include <vector>

#include "core/model/spec.h"
#include "core/model/tensor_parallel.h"
#include "core/ops/attention.h"
#include "core/tape.h"

namespace mixtape {

class KvCache {
 public:
  // `memory_capacity`: the longest sequence that an encoder reads; 0 where there is none.
  // `parallel`: the ranks that share out the heads.
  KvCache(const ModelSpec& spec, int64_t slots, int64_t capacity, int64_t memory_capacity, Backend& backend,
          DType dtype, TensorParallel parallel = TensorParallel());

  // Says which slots the next forward pass feeds, and with how many tokens each: rows follow one another in this order.
  void begin(const std::vector<int>& slots, const std::vector<int64_t>& new_tokens);
  // After the forward pass: the new tokens count as seen.
  void commit();

  int64_t length(int slot) const { return lengths_[slot]; }
  int64_t capacity() const { return capacity_; }
  void clear(int slot) { lengths_[slot] = 0; }

  // Appends the keys and values of `qkv` (packed as in core/ops/attention.h) to a layer and attends. Nothing is
  // recorded: generation has no gradient.
  Tensor attend(Tape& tape, int64_t layer, const Tensor& qkv, const Tensor& bias, AttentionSpec spec);

  // The slot's memory in a layer: [length, 2 n_kv_heads head_dim], keys, then values.
  void remember(int slot, int64_t layer, const Tensor& kv);
  // Each new token's query sees all of its slot's memory.
  Tensor attend_memory(Tape& tape, int64_t layer, const Tensor& q, AttentionSpec spec);

 private:
  Backend& backend_;
  int64_t capacity_, memory_capacity_;
  std::vector<Tensor> keys_, values_;  // per layer: [slots * capacity, n_kv_heads * head_dim]
  std::vector<Tensor> memory_;         // per layer: [slots * memory_capacity, 2 n_kv_heads * head_dim]
  std::vector<int64_t> lengths_, memory_lengths_;
  std::vector<int> active_;
  std::vector<int64_t> new_tokens_;
  Tensor segments_, memory_segments_, n_segments_;
};

}  // namespace mixtape
