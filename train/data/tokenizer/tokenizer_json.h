// Hugging Face's tokenizer.json, as TokenizerDefinition and back: models BPE, WordPiece and Unigram, with the
// components that component_reading.h lists. Anything else is an error that names it: a tokenizer that is half
// understood gives wrong ids.
//
// Readers throw DataError with `source` (the file's name), the place in the file, and what was found.
#pragma once

#include <string>
#include <string_view>

#include "train/data/tokenizer/definition.h"

namespace mixtape {

TokenizerDefinition read_tokenizer_json(std::string_view text, const std::string& source);
std::string write_tokenizer_json(const TokenizerDefinition& definition);

}  // namespace mixtape
