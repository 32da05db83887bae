#include "train/data/tokenizer/bpe_definition.h"

#include <string_view>

#include "train/data/tokenizer/byte_level.h"

namespace mixtape {

BpeDefinition byte_definition() {
  BpeDefinition definition;
  for (int byte = 0; byte < 256; ++byte)
    definition.tokens.push_back(to_byte_level(std::string(1, static_cast<char>(byte))));
  definition.tokens.push_back("<|endoftext|>");
  definition.in_model.assign(definition.tokens.size(), true);
  definition.added.push_back({.id = 256, .content = "<|endoftext|>"});
  definition.pre_tokenizer.push_back({.split = SplitRule::gpt2, .byte_level = true});
  definition.special.eos = 256;
  return definition;
}

void find_roles(BpeDefinition& definition) {
  find_special_tokens(definition.special, [&](std::string_view name) -> std::optional<int32_t> {
    for (const AddedToken& token : definition.added)
      if (token.content == name) return token.id;
    return std::nullopt;
  });
}

}  // namespace mixtape
