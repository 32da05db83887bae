// WordPiece (Schuster and Nakajima 2012) as BERT uses it: the longest token that a word begins with, then the longest
// that continues it, and so on; a word that cannot be covered is one unknown token.
#include "core/base/utf8.h"
#include "train/data/tokenizer/token_model.h"
#include "train/data/tokenizer/token_trie.h"

namespace mixtape {
namespace {

class WordPieceModel final : public TokenModel {
 public:
  explicit WordPieceModel(const TokenizerDefinition& definition)
      : rules_(std::get<WordPieceRules>(definition.model)), special_(special_flags(definition)) {
    for (size_t i = 0; i < definition.tokens.size(); ++i) {
      const std::string_view token = definition.tokens[i];
      if (!definition.in_model[i] || token.empty()) continue;
      beginnings_.add(token, static_cast<int32_t>(i));
      if (token.size() > rules_.prefix.size() && token.starts_with(rules_.prefix))
        continuations_.add(token.substr(rules_.prefix.size()), static_cast<int32_t>(i));
    }
  }

  void encode(std::string_view word, bool plain, std::vector<int32_t>& ids) const override {
    const size_t before = ids.size();
    bool known = !is_too_long(word);
    for (size_t at = 0; known && at < word.size();) {
      size_t length = 0;
      int32_t id = -1;
      const TokenTrie& tokens = at == 0 ? beginnings_ : continuations_;
      tokens.prefixes(word.substr(at), [&](size_t found_length, int32_t found) {
        if (plain && special_[found]) return;
        length = found_length;
        id = found;
      });
      if (id >= 0) ids.push_back(id);
      known = id >= 0;
      at += length;
    }
    if (known) return;
    ids.resize(before);
    ids.push_back(rules_.unknown);
  }

 private:
  bool is_too_long(std::string_view word) const {
    if (word.size() <= static_cast<size_t>(rules_.longest_word)) return false;
    int64_t characters = 0;
    for (size_t at = 0; at < word.size(); at += utf8_char(word, at).length) ++characters;
    return characters > rules_.longest_word;
  }

  const WordPieceRules& rules_;
  std::vector<bool> special_;
  TokenTrie beginnings_, continuations_;
};

}  // namespace

std::unique_ptr<TokenModel> make_wordpiece_model(const TokenizerDefinition& definition) {
  return std::make_unique<WordPieceModel>(definition);
}

}  // namespace mixtape
