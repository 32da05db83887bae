#include "train/data/tokenizer/component_reading.h"
#include "train/data/tokenizer/tokenizer_json.h"
#include "train/data/tokenizer/vocabulary_reader.h"

namespace mixtape {
namespace {

// Older files leave the type out; what the model holds tells it.
std::string model_type(const JsonAt& model) {
  if (model.has("type")) return model.type();
  if (model.has("merges")) return "BPE";
  return model.has("unk_id") ? "Unigram" : "WordPiece";
}

// The vocabulary is read first; merges need it whole, with the added tokens.
class ModelReader {
 public:
  ModelReader(const JsonAt& model, VocabularyReader& vocabulary)
      : model_(model), vocabulary_(vocabulary), type_(model_type(model)) {
    if (type_ != "BPE" && type_ != "WordPiece" && type_ != "Unigram")
      model_.fail("type '{}' is not supported, expected BPE, WordPiece or Unigram", type_);
    if (type_ == "Unigram")
      scores_ = vocabulary_.read_scored_vocabulary(model_.at("vocab"));
    else
      vocabulary_.read_vocabulary(model_.at("vocab"));
  }

  ModelRules rules() const {
    if (type_ == "BPE") return bpe();
    if (type_ == "WordPiece") return word_piece();
    return unigram();
  }

 private:
  BpeRules bpe() const {
    for (const char* key : {"dropout", "continuing_subword_prefix", "end_of_word_suffix"}) model_.expect_unset(key);
    BpeRules rules{.merges = vocabulary_.read_merges(model_.at("merges")),
                   .fuse_unknown = model_.flag("fuse_unk", false),
                   .byte_fallback = model_.flag("byte_fallback", false),
                   .ignore_merges = model_.flag("ignore_merges", false)};
    if (model_.has("unk_token")) rules.unknown = vocabulary_.id_of(model_.at("unk_token"));
    return rules;
  }

  WordPieceRules word_piece() const {
    WordPieceRules rules{.unknown = vocabulary_.id_of(model_.at("unk_token"))};
    if (model_.has("continuing_subword_prefix")) rules.prefix = model_.at("continuing_subword_prefix").text();
    if (rules.prefix.empty()) model_.at("continuing_subword_prefix").fail("is empty");
    if (model_.has("max_input_chars_per_word")) rules.longest_word = model_.at("max_input_chars_per_word").id();
    return rules;
  }

  UnigramRules unigram() const {
    UnigramRules rules{.scores = scores_, .byte_fallback = model_.flag("byte_fallback", false)};
    if (!model_.has("unk_id")) return rules;
    rules.unknown = model_.at("unk_id").id();
    if (static_cast<size_t>(*rules.unknown) >= scores_.size())
      model_.at("unk_id").fail("is {}, but model.vocab has {} tokens", *rules.unknown, scores_.size());
    return rules;
  }

  JsonAt model_;
  VocabularyReader& vocabulary_;
  std::string type_;
  std::vector<double> scores_;
};

// ByteLevel spells bytes as characters, which only the BPE here understands.
void check_byte_level(const TokenizerDefinition& definition, const JsonAt& root) {
  if (definition.byte_level() && !std::holds_alternative<BpeRules>(definition.model))
    root.at("pre_tokenizer").fail("ByteLevel is supported with a BPE model only");
}

}  // namespace

TokenizerDefinition read_tokenizer_json(std::string_view text, const std::string& source) {
  const nlohmann::json json = parse_json(text, source);
  const JsonAt root(json, source);
  TokenizerDefinition out;
  VocabularyReader vocabulary(out);
  const ModelReader model(root.at("model"), vocabulary);
  if (root.has("added_tokens")) vocabulary.read_added(root.at("added_tokens"));
  vocabulary.expect_no_holes(root);
  out.model = model.rules();
  if (root.has("normalizer")) out.normalizer = read_normalizer(root.at("normalizer"));
  if (root.has("pre_tokenizer")) out.pre_tokenizer = read_pre_tokenizer(root.at("pre_tokenizer"));
  check_byte_level(out, root);
  if (root.has("decoder"))
    out.decoder = read_decoder(root.at("decoder"));
  else if (!out.byte_level())
    out.decoder = BlankDecoder{};
  if (root.has("post_processor")) out.text_template = read_post_processor(root.at("post_processor"), out.tokens.size());
  find_roles(out);
  return out;
}

}  // namespace mixtape
