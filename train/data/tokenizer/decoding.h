// Decoders of a tokenizer.json: what tokens add to a text, and how they are joined.
#pragma once

#include <string>
#include <string_view>

#include "train/data/tokenizer/definition.h"

namespace mixtape {

struct DecodedToken {
  std::string bytes;
  bool is_fallback_byte = false;  // <0x0A> where the decoder reads it as a byte
};

// Of a token in the middle of a text, by its spelling.
DecodedToken decode_token(const Decoder& decoder, std::string_view token);

// Of a token at the start of a text; `bytes` is what decode_token gives.
std::string decode_first_token(const Decoder& decoder, std::string_view token, std::string_view bytes);

// Joins them to UTF-8. Broken bytes of a byte-level decoder become U+FFFD by their maximal parts; a run of fallback
// bytes is either UTF-8 as a whole or one U+FFFD a byte, as Hugging Face has it.
class TextJoiner {
 public:
  explicit TextJoiner(const Decoder& decoder) : byte_level_(std::holds_alternative<ByteLevelDecoder>(decoder)) {}
  void append(std::string_view bytes, bool is_fallback_byte);
  std::string finish();

 private:
  void end_run();

  bool byte_level_;
  std::string text_, run_;
};

}  // namespace mixtape
