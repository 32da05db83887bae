// Text from a model: prefill, then one token at a time over a key/value cache. After an encoder the prompt is what that
// reads, and the decoder goes on from its start token.
//
// Sequences are independent to the bit: a prompt gives the same tokens alone and in a batch. Each prompt is prefilled
// by itself; decoding computes every row of a linear layer alone (MatmulKernels::linear_rows). Random numbers are a
// function of (seed, prompt's number, token's number).
#pragma once

#include <functional>
#include <vector>

#include "core/model/kv_cache.h"
#include "train/engine.h"

namespace mixtape {

struct SamplingOptions {
  int64_t max_new_tokens = 64;
  double temperature = 1;  // 0: always the likeliest token, the lowest id among equals
  int64_t top_k = 0;       // sample among the k likeliest; 0: all
  double top_p = 1;        // sample among the likeliest whose probabilities reach p together
  uint64_t seed = 1234;
  int32_t tokens = 0;         // of the tokenizer: the model's table may have more rows; 0: all of them
  int32_t stop_token = -1;    // ends a sequence and is not part of it; -1: none
  int32_t decoder_start = 0;  // an encoder-decoder's first decoder input
  // Of processes that sample together: which token all take, given this one's. (Unlike processors round unlike.)
  std::function<int32_t(int32_t token)> agree = nullptr;
};

class Generator {
 public:
  // A cache of `slots` sequences of at most `capacity` tokens, prompt included; after an encoder, which reads as much,
  // that many new ones.
  Generator(Engine& engine, int64_t slots, int64_t capacity);

  // Called for every token as it is made.
  using OnToken = std::function<void(size_t prompt, int32_t token)>;
  // The new tokens of each prompt. Prompts must not be empty. More prompts than slots are done in groups.
  std::vector<std::vector<int32_t>> generate(const std::vector<std::vector<int32_t>>& prompts,
                                             const SamplingOptions& options, const OnToken& on_token = {});

 private:
  // The rows of the tokens, one sequence after another, with positions from `start[i]`.
  StackInputs rows_of(const std::vector<std::vector<int32_t>>& tokens, const std::vector<int64_t>& start);
  // Logits after a prompt, which begins the slot's sequence.
  std::vector<float> prefill(int slot, const std::vector<int32_t>& prompt, const SamplingOptions& options);
  void encode(int slot, const std::vector<int32_t>& prompt);
  // Feeds tokens to slots and returns the logits after the last token of each, [slots, vocab_size].
  std::vector<float> feed(const std::vector<int>& slots, const std::vector<std::vector<int32_t>>& tokens,
                          bool decoding);
  void generate_group(const std::vector<std::vector<int32_t>>& prompts, size_t first, size_t count,
                      const SamplingOptions& options, const OnToken& on_token, std::vector<std::vector<int32_t>>& out);

  Engine& engine_;
  int64_t slots_;
  bool encodes_;
  KvCache cache_;
};

// The next token from logits. `draw` in [0, 1) decides.
int32_t sample_token(std::span<const float> logits, const SamplingOptions& options, float draw);

// Goes through the motions of a training run's samples on an engine that plans.
void plan_generation(Engine& planning, const LoggingConfig& config);

}  // namespace mixtape
