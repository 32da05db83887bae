#include "train/data/tokenizer/component_writing.h"
#include "train/data/tokenizer/tokenizer_json.h"

namespace mixtape {
namespace {

using Json = nlohmann::ordered_json;

Json added_tokens(const TokenizerDefinition& d) {
  Json list = Json::array();
  for (const AddedToken& token : d.added)
    list.push_back({{"id", token.id},
                    {"content", token.content},
                    {"single_word", false},
                    {"lstrip", token.lstrip},
                    {"rstrip", token.rstrip},
                    {"normalized", token.normalized},
                    {"special", token.special}});
  return list;
}

Json vocabulary(const TokenizerDefinition& d) {
  // Appended past the map's own insertion, which would search for the key each time: quadratic.
  Json::object_t vocab;
  for (size_t id = 0; id < d.tokens.size(); ++id)
    if (d.in_model[id]) static_cast<Json::object_t::Container&>(vocab).emplace_back(d.tokens[id], id);
  return vocab;
}

struct Model {
  const TokenizerDefinition& d;

  Json operator()(const BpeRules& rules) const {
    Json merges = Json::array();
    for (const auto& [left, right] : rules.merges) merges.push_back(Json::array({d.tokens[left], d.tokens[right]}));
    return {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", rules.unknown ? Json(d.tokens[*rules.unknown]) : Json(nullptr)},
            {"continuing_subword_prefix", nullptr},
            {"end_of_word_suffix", nullptr},
            {"fuse_unk", rules.fuse_unknown},
            {"byte_fallback", rules.byte_fallback},
            {"ignore_merges", rules.ignore_merges},
            {"vocab", vocabulary(d)},
            {"merges", std::move(merges)}};
  }
  Json operator()(const WordPieceRules& rules) const {
    return {{"type", "WordPiece"},
            {"unk_token", d.tokens[rules.unknown]},
            {"continuing_subword_prefix", rules.prefix},
            {"max_input_chars_per_word", rules.longest_word},
            {"vocab", vocabulary(d)}};
  }
  Json operator()(const UnigramRules& rules) const {
    Json vocab = Json::array();
    for (size_t id = 0; id < rules.scores.size(); ++id) vocab.push_back(Json::array({d.tokens[id], rules.scores[id]}));
    return {{"type", "Unigram"},
            {"unk_id", rules.unknown ? Json(*rules.unknown) : Json(nullptr)},
            {"vocab", std::move(vocab)},
            {"byte_fallback", rules.byte_fallback}};
  }
};

}  // namespace

std::string write_tokenizer_json(const TokenizerDefinition& d) {
  const Json root = {{"version", "1.0"},
                     {"truncation", nullptr},
                     {"padding", nullptr},
                     {"added_tokens", added_tokens(d)},
                     {"normalizer", normalizer_json(d)},
                     {"pre_tokenizer", pre_tokenizer_json(d)},
                     {"post_processor", post_processor_json(d)},
                     {"decoder", decoder_json(d)},
                     {"model", std::visit(Model{d}, d.model)}};
  return root.dump(2) + "\n";
}

}  // namespace mixtape
