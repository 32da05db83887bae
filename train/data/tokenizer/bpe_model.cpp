// Byte-pair encoding (Sennrich et al. 2016): a piece's characters, or its bytes, merged as far as the merges go.
#include <array>

#include "core/base/error.h"
#include "core/base/utf8.h"
#include "train/data/tokenizer/bpe_merges.h"
#include "train/data/tokenizer/byte_level.h"
#include "train/data/tokenizer/token_model.h"

namespace mixtape {
namespace {

class BpeModel final : public TokenModel {
 public:
  BpeModel(const TokenizerDefinition& definition, const std::string& source)
      : rules_(std::get<BpeRules>(definition.model)),
        byte_level_(definition.byte_level()),
        fallback_(definition),
        merges_({}, {}) {
    std::unordered_map<std::string_view, int32_t> id_of;
    for (size_t id = 0; id < definition.tokens.size(); ++id)
      if (definition.in_model[id]) id_of.emplace(definition.tokens[id], static_cast<int32_t>(id));
    index_symbols(definition, source);
    merges_ = BpeMerges(rules_.merges, merge_results(definition, id_of, source));
    if (rules_.ignore_merges) {
      whole_ = std::move(id_of);
      special_ = special_flags(definition);
    }
  }

  void encode(std::string_view piece, bool plain, std::vector<int32_t>& ids) const override {
    if (rules_.ignore_merges) {
      const auto whole = byte_level_ ? whole_.find(to_byte_level(piece)) : whole_.find(piece);
      if (whole != whole_.end() && !(plain && special_[whole->second])) {
        ids.push_back(whole->second);
        return;
      }
    }
    static thread_local std::vector<int32_t> symbols;
    symbols.clear();
    if (byte_level_)
      for (const char c : piece) symbols.push_back(id_of_byte_[static_cast<uint8_t>(c)]);
    else
      first_symbols(piece, symbols);
    merges_.apply(symbols);
    ids.insert(ids.end(), symbols.begin(), symbols.end());
  }

 private:
  // The tokens that merging begins with.
  void index_symbols(const TokenizerDefinition& definition, const std::string& source) {
    id_of_byte_.fill(-1);
    for (size_t i = 0; i < definition.tokens.size(); ++i) {
      const std::string& token = definition.tokens[i];
      const auto id = static_cast<int32_t>(i);
      if (!definition.in_model[i] || token.empty()) continue;
      if (!byte_level_) {
        if (const Utf8Char c = utf8_char(token, 0); c.length == token.size()) id_of_character_.emplace(c.code, id);
      } else if (const auto bytes = from_byte_level(token); bytes && bytes->size() == 1) {
        id_of_byte_[static_cast<uint8_t>((*bytes)[0])] = id;
      }
    }
    for (int byte = 0; byte < 256 && byte_level_; ++byte)
      if (id_of_byte_[byte] < 0)
        throw DataError("{}: model.vocab: no token for the byte 0x{:02X} ('{}'); a byte-level vocabulary needs all 256",
                        source, byte, to_byte_level(std::string(1, static_cast<char>(byte))));
  }

  std::vector<int32_t> merge_results(const TokenizerDefinition& definition,
                                     const std::unordered_map<std::string_view, int32_t>& id_of,
                                     const std::string& source) const {
    std::vector<int32_t> results;
    results.reserve(rules_.merges.size());
    for (const auto& [left, right] : rules_.merges) {
      const std::string& a = definition.tokens[left];
      const std::string& b = definition.tokens[right];
      const auto joined = id_of.find(a + b);
      if (joined == id_of.end())
        throw DataError("{}: model.merges[{}]: '{}' and '{}' make '{}', which is not in model.vocab", source,
                        results.size(), a, b, a + b);
      results.push_back(joined->second);
    }
    return results;
  }

  void first_symbols(std::string_view piece, std::vector<int32_t>& symbols) const {
    bool after_unknown = false;
    for (size_t at = 0; at < piece.size();) {
      const Utf8Char c = utf8_char(piece, at);
      const std::string_view bytes = c.valid ? piece.substr(at, c.length) : replacement_text;
      at += c.length;
      const auto known = id_of_character_.find(c.code);
      const bool unknown = known == id_of_character_.end();
      const bool as_bytes = unknown && rules_.byte_fallback && fallback_.encode(bytes, symbols);
      if (!unknown)
        symbols.push_back(known->second);
      else if (!as_bytes && rules_.unknown && !(after_unknown && rules_.fuse_unknown))
        symbols.push_back(*rules_.unknown);
      after_unknown = unknown && !as_bytes;
    }
  }

  const BpeRules& rules_;
  bool byte_level_;
  std::array<int32_t, 256> id_of_byte_;                    // byte level
  std::unordered_map<uint32_t, int32_t> id_of_character_;  // not byte level
  ByteFallback fallback_;
  BpeMerges merges_;
  std::unordered_map<std::string_view, int32_t> whole_;  // with ignore_merges
  std::vector<bool> special_;
};

}  // namespace

std::unique_ptr<TokenModel> make_bpe_model(const TokenizerDefinition& definition, const std::string& source) {
  return std::make_unique<BpeModel>(definition, source);
}

}  // namespace mixtape
