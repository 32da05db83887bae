// A SentencePiece .model as data: the few fields of its protocol buffer that decide ids.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "train/data/tokenizer/definition.h"

namespace mixtape {

struct SentencePieceModel {
  enum class Algorithm { unigram = 1, bpe = 2, word = 3, character = 4 };
  enum class Kind { normal = 1, unknown = 2, control = 3, user_defined = 4, unused = 5, byte = 6 };
  struct Piece {
    std::string text;
    float score = 0;
    Kind kind = Kind::normal;
  };
  std::vector<Piece> pieces;
  Algorithm algorithm = Algorithm::unigram;
  bool byte_fallback = false;
  std::string character_map;  // precompiled; may be empty
};

// Throws DataError naming `source` for what is not such a file.
SentencePieceModel read_sentencepiece_model(std::string_view bytes, const std::string& source);

// A unigram model in T5's layout: as tokenizer.json has it, with `sentinels` behind the pieces. Its ids are those of
// the library for models trained with the dummy prefix and without extra white space (the library's defaults, T5's).
TokenizerDefinition t5_definition(const SentencePieceModel& model, int32_t sentinels, const std::string& source);

}  // namespace mixtape
