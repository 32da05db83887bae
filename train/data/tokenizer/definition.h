// Everything that decides what a tokenizer does, as data: what a tokenizer.json says, with names resolved to ids.
// Read and written by tokenizer_json.h, executed by pipeline_tokenizer.h, produced by the trainers.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "train/data/tokenizer/normalizer.h"
#include "train/data/tokenizer/special_tokens.h"
#include "train/data/tokenizer/split.h"

namespace mixtape {

inline constexpr const char* metaspace_mark = "\u2581";  // ▁

// A token that is found in the text before anything else happens to it.
struct AddedToken {
  int32_t id = 0;
  std::string content;
  bool special = true;
  bool normalized = false;  // found after normalization, in its normalized form
  bool lstrip = false;      // takes the white space before it along
  bool rstrip = false;      // and after it
};

// Pre-tokenizers: how a text becomes pieces. All but these are a SplitRule alone.
struct ByteLevel {
  std::optional<SplitRule> split = SplitRule::gpt2;  // or none, where an earlier step has split
  bool add_prefix_space = false;                     // a piece that does not begin with a blank gets one
};
struct Metaspace {  // blanks become marks
  enum class Prepend { always, first, never };
  std::string mark = metaspace_mark;
  Prepend prepend = Prepend::always;  // a mark in front of a piece without one: of each, or where the text begins
  bool split = true;                  // a piece begins at each mark
};
using PreTokenizerStep = std::variant<SplitRule, ByteLevel, Metaspace>;

// Models: how a piece becomes ids.
struct BpeRules {
  std::vector<std::pair<int32_t, int32_t>> merges;  // by rank; the tokens joined are a token of the model too
  std::optional<int32_t> unknown;
  bool fuse_unknown = false;
  bool byte_fallback = false;
  bool ignore_merges = false;  // a piece that is a token stays whole, whatever the merges say
};
struct WordPieceRules {
  int32_t unknown = 0;
  std::string prefix = "##";   // of a token that continues a word
  int32_t longest_word = 100;  // characters; longer ones are unknown
};
struct UnigramRules {
  std::vector<double> scores;  // by id, for the tokens of the model
  std::optional<int32_t> unknown;
  bool byte_fallback = false;
};
using ModelRules = std::variant<BpeRules, WordPieceRules, UnigramRules>;

// Decoders: what a token adds to a text.
struct ByteLevelDecoder {};  // its bytes
struct PieceDecoder {        // in this order
  std::vector<Replace> replace;
  bool byte_fallback = false;  // <0x0A> is a byte
  bool fuse = false;
  bool strip_space = false;  // one blank at the start of the text goes
};
struct WordPieceDecoder {  // a blank in front, but for tokens with the prefix
  std::string prefix = "##";
  bool cleanup = true;  // no blank before . ? ! , n't 'm 's 've 're
};
struct MetaspaceDecoder {
  Metaspace metaspace;  // its marks are blanks; those of the first token go, unless nothing was prepended
};
struct BlankDecoder {};  // no decoder: a blank between tokens
using Decoder = std::variant<ByteLevelDecoder, PieceDecoder, WordPieceDecoder, MetaspaceDecoder, BlankDecoder>;

// What EncodeOptions::add_special and encode_pair() make of texts.
struct TemplateItem {
  enum class Kind { token, first_text, second_text } kind = Kind::token;
  int32_t id = 0;    // of a token
  int32_t type = 0;  // BERT's token type

  bool operator==(const TemplateItem&) const = default;
};
struct TextTemplate {
  std::vector<TemplateItem> single = {{.kind = TemplateItem::Kind::first_text}};
  std::vector<TemplateItem> pair = {{.kind = TemplateItem::Kind::first_text},
                                    {.kind = TemplateItem::Kind::second_text, .type = 1}};
  bool is_given = false;  // by the file; else these

  // [CLS] A [SEP] and [CLS] A [SEP] B [SEP], as BertProcessing has it.
  static TextTemplate bert(int32_t cls, int32_t sep);
  // <s> A </s> and <s> A </s> </s> B </s>, all of type 0.
  static TextTemplate roberta(int32_t cls, int32_t sep);
  // A </s> and A </s> B </s>, all of type 0.
  static TextTemplate t5(int32_t eos);
  // <s> A, and <s> A <s> B.
  static TextTemplate llama(int32_t bos);
};

struct TokenizerDefinition {
  std::vector<std::string> tokens;  // by id, as the file spells them
  std::vector<bool> in_model;       // by id: in the model's vocabulary; the others are added tokens only
  ModelRules model;
  std::vector<AddedToken> added;
  std::vector<NormalizerStep> normalizer;
  std::vector<PreTokenizerStep> pre_tokenizer;
  Decoder decoder;
  TextTemplate text_template;
  SpecialTokens special;  // not part of tokenizer.json, but of tokenizer_config.json beside it

  bool byte_level() const {
    for (const PreTokenizerStep& step : pre_tokenizer)
      if (std::holds_alternative<ByteLevel>(step)) return true;
    return false;
  }
};

// The tokenizer `bytes`: ids 0-255 are the bytes, 256 is <|endoftext|>.
TokenizerDefinition byte_definition();

// BERT's pipeline around a vocabulary that has [UNK], [CLS] and [SEP]; `vocabulary` by id. Throws DataError naming
// `source` for a token that is missing or given twice.
TokenizerDefinition bert_definition(std::vector<std::string> vocabulary, const BertNormalizer& normalizer,
                                    const std::string& source);

// Fills the roles that are not set from the names of the added tokens.
void find_roles(TokenizerDefinition& definition);

}  // namespace mixtape
