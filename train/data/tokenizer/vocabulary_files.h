// The files beside tokenizer.json, and those that came before it: vocab.txt, vocab.json with merges.txt,
// tokenizer_config.json, special_tokens_map.json.
//
// Readers throw DataError with the name, the place in the file, and what was found.
#pragma once

#include <string>
#include <string_view>

#include "train/data/tokenizer/definition.h"

namespace mixtape {

struct NamedText {
  std::string_view text;
  std::string source;  // the file's name
};

// GPT-2's pair: vocab.json (token -> id) and merges.txt (a merge a line). Tokens named like special ones are special.
// A vocabulary with <mask>, <s> and </s> is RoBERTa's or BART's and gets their template.
TokenizerDefinition read_vocab_and_merges(const NamedText& vocab, const NamedText& merges);

// BERT's: a token a line.
TokenizerDefinition read_vocab_txt(const NamedText& vocab, const BertNormalizer& normalizer);
std::string write_vocab_txt(const TokenizerDefinition& definition);
// Whether a vocab.txt with its tokenizer_config.json says all of it.
bool is_bert_layout(const TokenizerDefinition& definition);

// From a tokenizer_config.json.
BertNormalizer read_bert_normalizer(const NamedText& config);  // do_lower_case, tokenize_chinese_chars, strip_accents
int32_t read_extra_ids(const NamedText& config);               // T5's sentinels behind the pieces of a .model
void read_template(const NamedText& config, TokenizerDefinition& definition);  // add_bos_token, for the pair

// The tokens with a role, by tokenizer_config.json or special_tokens_map.json; a token that is missing is an error for
// bos and eos, others are often named and never added.
void read_roles(const NamedText& config, TokenizerDefinition& definition);

std::string write_tokenizer_config(const TokenizerDefinition& definition);
// Of a .model with sentinels behind its pieces.
std::string write_t5_config(const SpecialTokens& special);

}  // namespace mixtape
