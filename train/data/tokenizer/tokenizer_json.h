// Hugging Face's files of a BPE tokenizer, as BpeDefinition and back.
//
// tokenizer.json: model BPE; normalizers NFC, NFD, NFKC, NFKD, Prepend, Replace; pre-tokenizers ByteLevel, Digits,
// Split with the published patterns of split.h; decoders ByteLevel, or Replace, ByteFallback, Fuse, Strip;
// post-processors ByteLevel, TemplateProcessing, RobertaProcessing, BertProcessing; each also in a Sequence. Anything
// else is an error that names the component: a tokenizer that is half understood gives wrong ids.
//
// All readers throw DataError with `source` (the file's name), the place in the file, and what was found.
#pragma once

#include <string>
#include <string_view>

#include "train/data/tokenizer/bpe_definition.h"

namespace mixtape {

BpeDefinition read_tokenizer_json(std::string_view text, const std::string& source);

// GPT-2's pair: vocab.json (token -> id) and merges.txt (a merge a line). Tokens named like special ones are special.
struct NamedText {
  std::string_view text;
  std::string source;
};
BpeDefinition read_vocab_and_merges(const NamedText& vocab, const NamedText& merges);

// The roles that tokenizer_config.json gives, and for the pair whether a text begins with bos.
void read_tokenizer_config(std::string_view text, const std::string& source, BpeDefinition& definition);

std::string write_tokenizer_json(const BpeDefinition& definition);
std::string write_tokenizer_config(const BpeDefinition& definition);

}  // namespace mixtape
