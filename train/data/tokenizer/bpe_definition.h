// Everything that decides what a BPE tokenizer does, as data: what a tokenizer.json says, with names resolved to ids.
// Read and written by tokenizer_json.h, executed by bpe_tokenizer.h, produced by bpe_trainer.h.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "train/data/tokenizer/special_tokens.h"
#include "train/data/tokenizer/split.h"

namespace mixtape {

// A token that is found in the text before anything else happens to it.
struct AddedToken {
  int32_t id = 0;
  std::string content;
  bool special = true;
  bool normalized = false;  // found after normalization, in its normalized form
  bool lstrip = false;      // takes the white space before it along
  bool rstrip = false;      // and after it
};

struct NormalizerStep {
  enum class Kind : uint8_t { nfc, nfd, nfkc, nfkd, prepend, replace } kind = Kind::nfc;
  std::string pattern;  // replace: the text to replace
  std::string content;  // prepend, replace: what to put
};

struct PreTokenizerStep {
  std::optional<SplitRule> split;
  bool byte_level = false;        // Hugging Face's ByteLevel; the split is then GPT-2's or none
  bool add_prefix_space = false;  // of ByteLevel: a piece that does not begin with a blank gets one
};

struct BpeDecoder {
  bool byte_level = true;  // the tokens' bytes, joined; what follows is for the other kind, in this order
  std::vector<std::pair<std::string, std::string>> replace;
  bool byte_fallback = false;  // <0x0A> is a byte
  bool fuse = false;
  bool strip_space = false;  // one blank at the start of the text goes
};

// Ids put around a text by EncodeOptions::add_special.
struct TextTemplate {
  std::vector<int32_t> before, after;
  bool empty() const { return before.empty() && after.empty(); }
};

struct BpeDefinition {
  std::vector<std::string> tokens;  // by id, as the file spells them
  std::vector<bool> in_model;       // by id: in the model's vocabulary; the others are added tokens only
  std::vector<std::pair<int32_t, int32_t>> merges;  // by rank; the tokens joined are a token of the model too
  std::vector<AddedToken> added;
  std::vector<NormalizerStep> normalizer;
  std::vector<PreTokenizerStep> pre_tokenizer;
  BpeDecoder decoder;
  TextTemplate text_template;
  std::optional<int32_t> unknown;
  bool fuse_unknown = false;
  bool byte_fallback = false;
  bool ignore_merges = false;  // a piece that is a token stays whole, whatever the merges say

  SpecialTokens special;  // not part of tokenizer.json, but of tokenizer_config.json beside it

  bool byte_level() const {
    for (const PreTokenizerStep& step : pre_tokenizer)
      if (step.byte_level) return true;
    return false;
  }
};

// The tokenizer `bytes`: ids 0-255 are the bytes, 256 is <|endoftext|>.
BpeDefinition byte_definition();

// Fills the roles that are not set from the names of the added tokens.
void find_roles(BpeDefinition& definition);

}  // namespace mixtape
