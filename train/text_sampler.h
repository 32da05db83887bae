// Samples of text that a run shows while it trains.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "train/config/output.h"
#include "train/data/tokenizer/tokenizer.h"
#include "train/engine.h"

namespace mixtape {

struct SampleText {
  std::string prompt, text;
};

// One text for each of logging.sample_prompts. A prompt that leaves no room for new tokens loses its beginning. After
// an encoder, which reads the prompt, the decoder begins with `decoder_start` and writes no more than a row of
// training. `agree`: as of SamplingOptions.
std::vector<SampleText> sample_texts(Engine& engine, const Tokenizer& tokenizer, const LoggingConfig& config,
                                     uint64_t seed, int32_t decoder_start = 0,
                                     const std::function<int32_t(int32_t)>& agree = {});

// Generated tokens as text, one at a time. Special tokens leave no trace, but T5's sentinels do: they say which span
// follows.
class GeneratedText {
 public:
  // `after_prompt`: it continues a text, so a blank at its start is kept.
  GeneratedText(const Tokenizer& tokenizer, bool after_prompt);
  std::string next(int32_t token);
  std::string finish() { return decoder_.finish(); }

 private:
  const Tokenizer& tokenizer_;
  StreamDecoder decoder_;
};

// A prompt as ids; an empty one begins a document: the end-of-sequence token, or the tokenizer's own beginning. What an
// encoder reads is enclosed as training encloses texts (train/objective/text_frame.h).
std::vector<int32_t> prompt_ids(const Tokenizer& tokenizer, const std::string& prompt, bool for_encoder);

}  // namespace mixtape
