// The components of a tokenizer.json as Hugging Face's `tokenizers` writes them, key by key. For .cpp files only.
#pragma once

#include <nlohmann/json.hpp>

#include "train/data/tokenizer/definition.h"

namespace mixtape {

nlohmann::ordered_json normalizer_json(const TokenizerDefinition& definition);
nlohmann::ordered_json pre_tokenizer_json(const TokenizerDefinition& definition);
nlohmann::ordered_json decoder_json(const TokenizerDefinition& definition);
nlohmann::ordered_json post_processor_json(const TokenizerDefinition& definition);

}  // namespace mixtape
