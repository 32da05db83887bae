#include "train/data/tokenizer/definition.h"

#include <string_view>
#include <unordered_map>

#include "core/base/error.h"
#include "train/data/tokenizer/byte_level.h"

namespace mixtape {
namespace {

using Item = TemplateItem;
constexpr Item first{.kind = Item::Kind::first_text};

Item second(int32_t type) { return {.kind = Item::Kind::second_text, .type = type}; }
Item token(int32_t id, int32_t type = 0) { return {.id = id, .type = type}; }

}  // namespace

TextTemplate TextTemplate::bert(int32_t cls, int32_t sep) {
  return {.single = {token(cls), first, token(sep)},
          .pair = {token(cls), first, token(sep), second(1), token(sep, 1)},
          .is_given = true};
}

TextTemplate TextTemplate::roberta(int32_t cls, int32_t sep) {
  return {.single = {token(cls), first, token(sep)},
          .pair = {token(cls), first, token(sep), token(sep), second(0), token(sep)},
          .is_given = true};
}

TextTemplate TextTemplate::t5(int32_t eos) {
  return {.single = {first, token(eos)}, .pair = {first, token(eos), second(0), token(eos)}, .is_given = true};
}

TextTemplate TextTemplate::llama(int32_t bos) {
  return {.single = {token(bos), first}, .pair = {token(bos), first, token(bos, 1), second(1)}, .is_given = true};
}

TokenizerDefinition byte_definition() {
  TokenizerDefinition definition;
  for (int byte = 0; byte < 256; ++byte)
    definition.tokens.push_back(to_byte_level(std::string(1, static_cast<char>(byte))));
  definition.tokens.push_back("<|endoftext|>");
  definition.in_model.assign(definition.tokens.size(), true);
  definition.added.push_back({.id = 256, .content = "<|endoftext|>"});
  definition.pre_tokenizer.push_back(ByteLevel{});
  definition.special.eos = 256;
  return definition;
}

TokenizerDefinition bert_definition(std::vector<std::string> vocabulary, const BertNormalizer& normalizer,
                                    const std::string& source) {
  std::unordered_map<std::string_view, int32_t> ids;
  for (size_t id = 0; id < vocabulary.size(); ++id)
    if (!ids.emplace(vocabulary[id], static_cast<int32_t>(id)).second)
      throw DataError("{}: '{}' stands twice, in lines {} and {}", source, vocabulary[id], ids[vocabulary[id]] + 1,
                      id + 1);
  const auto needed = [&](const char* name) {
    const auto found = ids.find(name);
    if (found == ids.end())
      throw DataError("{}: the token {} is missing; a WordPiece vocabulary needs [UNK], [CLS] and [SEP]", source, name);
    return found->second;
  };
  TokenizerDefinition definition;
  definition.model = WordPieceRules{.unknown = needed("[UNK]")};
  definition.text_template = TextTemplate::bert(needed("[CLS]"), needed("[SEP]"));
  for (const char* name : {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"})
    if (const auto found = ids.find(name); found != ids.end())
      definition.added.push_back({.id = found->second, .content = name});
  definition.in_model.assign(vocabulary.size(), true);
  definition.tokens = std::move(vocabulary);
  definition.normalizer = {normalizer};
  definition.pre_tokenizer = {SplitRule::bert};
  definition.decoder = WordPieceDecoder{};
  find_roles(definition);
  return definition;
}

void find_roles(TokenizerDefinition& definition) {
  find_special_tokens(definition.special, [&](std::string_view name) -> std::optional<int32_t> {
    for (const AddedToken& token : definition.added)
      if (token.content == name) return token.id;
    return std::nullopt;
  });
}

}  // namespace mixtape
