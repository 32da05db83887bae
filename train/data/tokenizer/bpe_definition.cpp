#include "train/data/tokenizer/bpe_definition.h"

#include <initializer_list>
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
  definition.eos = 256;
  return definition;
}

void find_roles(BpeDefinition& definition) {
  const auto find = [&](std::optional<int32_t>& role, std::initializer_list<std::string_view> names) {
    for (const std::string_view name : names) {
      if (role) return;
      for (const AddedToken& token : definition.added)
        if (token.content == name) role = token.id;
    }
  };
  find(definition.eos, {"<|endoftext|>", "</s>", "<|end_of_text|>", "<eos>", "[SEP]"});
  find(definition.bos, {"<s>", "<|begin_of_text|>", "<bos>", "[CLS]"});
  find(definition.pad, {"<pad>", "[PAD]", "<|pad|>", "<|finetune_right_pad_id|>"});
}

}  // namespace mixtape
