// Tokens, ids and merges from JSON into a TokenizerDefinition, checked. For .cpp files only.
#pragma once

#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "train/data/tokenizer/definition.h"
#include "train/data/tokenizer/json_reading.h"

namespace mixtape {

class VocabularyReader {
 public:
  explicit VocabularyReader(TokenizerDefinition& definition) : out_(definition) {}

  // {"token": id, ...}
  void read_vocabulary(const JsonAt& vocab);
  // [["token", score], ...]; returns the scores.
  std::vector<double> read_scored_vocabulary(const JsonAt& vocab);
  // [["left", "right"], ...] or ["left right", ...]
  std::vector<std::pair<int32_t, int32_t>> read_merges(const JsonAt& merges) const;
  void read_added(const JsonAt& list);
  // Every id up to the greatest has a token.
  void expect_no_holes(const JsonAt& root) const;

  // The id of the token that `token` names.
  int32_t id_of(const JsonAt& token) const;

 private:
  void set_token(const JsonAt& where, int32_t id, const std::string& token);
  std::pair<int32_t, int32_t> merge_of(const JsonAt& merges, size_t i, std::string_view left,
                                       std::string_view right) const;

  TokenizerDefinition& out_;
  std::vector<bool> known_;
  std::unordered_map<std::string, int32_t> id_of_;
};

}  // namespace mixtape
