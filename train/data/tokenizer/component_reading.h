// The components of a tokenizer.json: normalizer, pre-tokenizer, decoder, post-processor. For .cpp files only.
//
// Each also as a Sequence. What is not known is an error that names the component and the place.
#pragma once

#include <vector>

#include "train/data/tokenizer/definition.h"
#include "train/data/tokenizer/json_reading.h"

namespace mixtape {

// BertNormalizer, Lowercase, NFC, NFD, NFKC, NFKD, Precompiled, Prepend, Replace, Strip, StripAccents.
std::vector<NormalizerStep> read_normalizer(const JsonAt& value);

// BertPreTokenizer, ByteLevel (last), Digits, Metaspace, Split with a pattern of split.h, WhitespaceSplit.
std::vector<PreTokenizerStep> read_pre_tokenizer(const JsonAt& value);

// ByteLevel; Metaspace; WordPiece; or Replace, ByteFallback, Fuse, Strip in this order.
Decoder read_decoder(const JsonAt& value);

// BertProcessing, ByteLevel (changes offsets only), RobertaProcessing, TemplateProcessing. Ids are below `vocab_size`.
TextTemplate read_post_processor(const JsonAt& value, size_t vocab_size);

// The items of a Sequence under `key`, or the value itself as the only item; nothing for null.
std::vector<JsonAt> sequence_items(const JsonAt& value, const char* key);

[[noreturn]] void unsupported(const JsonAt& value, const char* expected);

}  // namespace mixtape
