// The unigram language model (Kudo 2018): of all ways to write a piece as tokens, the one of the greatest sum of
// scores.
//
// Viterbi over the ends of characters, with Hugging Face's rules for the rest: a character without a token of its own
// may be unknown, at 10 below the least score, and neighbouring unknown characters are one token.
#include <algorithm>

#include "core/base/utf8.h"
#include "train/data/tokenizer/token_model.h"
#include "train/data/tokenizer/token_trie.h"

namespace mixtape {
namespace {

constexpr double unknown_penalty = 10;

class UnigramModel final : public TokenModel {
 public:
  explicit UnigramModel(const TokenizerDefinition& definition)
      : rules_(std::get<UnigramRules>(definition.model)), special_(special_flags(definition)), fallback_(definition) {
    for (size_t i = 0; i < definition.tokens.size(); ++i)
      if (definition.in_model[i] && !definition.tokens[i].empty())
        tokens_.add(definition.tokens[i], static_cast<int32_t>(i));
    if (!rules_.scores.empty()) unknown_score_ = *std::ranges::min_element(rules_.scores) - unknown_penalty;
  }

  void encode(std::string_view piece, bool plain, std::vector<int32_t>& ids) const override {
    static thread_local std::vector<Node> nodes;
    find_best(piece, plain, nodes);
    // From the end to the start; then in order, with runs of unknown characters joined.
    static thread_local std::vector<size_t> ends;
    ends.clear();
    for (size_t end = piece.size(); end > 0; end = nodes[end].begin) ends.push_back(end);
    for (size_t i = ends.size(); i-- > 0;) {
      const Node& node = nodes[ends[i]];
      if (!node.unknown) {
        ids.push_back(node.id);
        continue;
      }
      while (i > 0 && nodes[ends[i - 1]].unknown) --i;
      append_unknown(piece.substr(node.begin, ends[i] - node.begin), ids);
    }
  }

 private:
  struct Node {  // the best way to here
    double score;
    size_t begin;  // of its last token
    int32_t id;
    bool reached, unknown;
  };

  void find_best(std::string_view piece, bool plain, std::vector<Node>& nodes) const {
    nodes.assign(piece.size() + 1, Node{});
    for (size_t at = 0, width; at < piece.size(); at += width) {
      width = utf8_char(piece, at).length;
      const auto offer = [&](size_t length, double score, int32_t id, bool unknown) {
        Node& node = nodes[at + length];
        score += nodes[at].score;
        if (!node.reached || score > node.score) node = {score, at, id, true, unknown};
      };
      bool has_own = false;
      tokens_.prefixes(piece.substr(at), [&](size_t length, int32_t id) {
        if (plain && special_[id]) return;
        has_own |= length == width;
        offer(length, rules_.scores[id], id, id == rules_.unknown);
      });
      if (!has_own) offer(width, unknown_score_, -1, true);
    }
  }

  void append_unknown(std::string_view text, std::vector<int32_t>& ids) const {
    if (rules_.byte_fallback && fallback_.encode(text, ids)) return;
    if (rules_.unknown) ids.push_back(*rules_.unknown);
  }

  const UnigramRules& rules_;
  std::vector<bool> special_;
  ByteFallback fallback_;
  TokenTrie tokens_;
  double unknown_score_ = -unknown_penalty;
};

}  // namespace

std::unique_ptr<TokenModel> make_unigram_model(const TokenizerDefinition& definition) {
  return std::make_unique<UnigramModel>(definition);
}

}  // namespace mixtape
