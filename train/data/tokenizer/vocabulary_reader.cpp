#include "train/data/tokenizer/vocabulary_reader.h"

namespace mixtape {

void VocabularyReader::set_token(const JsonAt& where, int32_t id, const std::string& token) {
  if (static_cast<size_t>(id) >= out_.tokens.size()) {
    out_.tokens.resize(id + 1);
    out_.in_model.resize(id + 1);
    known_.resize(id + 1);
  }
  if (known_[id]) where.fail("'{}' and '{}' both have the id {}", out_.tokens[id], token, id);
  const auto [previous, is_new] = id_of_.emplace(token, id);
  if (!is_new) where.fail("'{}' has two ids, {} and {}", token, previous->second, id);
  out_.tokens[id] = token;
  known_[id] = true;
}

void VocabularyReader::read_vocabulary(const JsonAt& vocab) {
  for (const auto& [token, value] : vocab.object().items()) {
    const int32_t id = JsonAt(value, fmt::format("{}: the id of '{}'", vocab.source(), token)).id();
    set_token(vocab, id, token);
    out_.in_model[id] = true;
  }
  if (out_.tokens.empty()) vocab.fail("is empty");
}

std::vector<double> VocabularyReader::read_scored_vocabulary(const JsonAt& vocab) {
  std::vector<double> scores;
  for (size_t i = 0; i < vocab.size(); ++i) {
    const nlohmann::json& item = vocab.value()[i];
    if (!item.is_array() || item.size() != 2 || !item[0].is_string() || !item[1].is_number())
      vocab.at(i).fail("expected a token and its score");
    set_token(vocab, static_cast<int32_t>(i), item[0].get_ref<const std::string&>());
    out_.in_model[i] = true;
    scores.push_back(item[1].get<double>());
  }
  if (scores.empty()) vocab.fail("is empty");
  return scores;
}

std::vector<std::pair<int32_t, int32_t>> VocabularyReader::read_merges(const JsonAt& merges) const {
  std::vector<std::pair<int32_t, int32_t>> out;
  for (size_t i = 0; i < merges.size(); ++i) {
    const nlohmann::json& merge = merges.value()[i];
    std::string_view left, right;
    if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      left = merge[0].get_ref<const std::string&>();
      right = merge[1].get_ref<const std::string&>();
    } else if (merge.is_string()) {
      const std::string_view line = merge.get_ref<const std::string&>();
      const size_t blank = line.find(' ');
      if (blank == line.npos || line.find(' ', blank + 1) != line.npos)
        merges.at(i).fail("'{}': expected two tokens with one blank between them", line);
      left = line.substr(0, blank);
      right = line.substr(blank + 1);
    } else {
      merges.at(i).fail("expected two tokens");
    }
    out.push_back(merge_of(merges, i, left, right));
  }
  return out;
}

std::pair<int32_t, int32_t> VocabularyReader::merge_of(const JsonAt& merges, size_t i, std::string_view left,
                                                       std::string_view right) const {
  const auto find = [&](std::string_view token) {
    const auto found = id_of_.find(std::string(token));
    if (found == id_of_.end() || !out_.in_model[found->second])
      merges.fail("merge {} ('{}' '{}'): '{}' is not in the vocabulary", i, left, right, token);
    return found->second;
  };
  return {find(left), find(right)};
}

void VocabularyReader::expect_no_holes(const JsonAt& root) const {
  for (size_t id = 0; id < out_.tokens.size(); ++id)
    if (!known_[id]) root.fail("no token has the id {}, though ids go up to {}", id, out_.tokens.size() - 1);
}

void VocabularyReader::read_added(const JsonAt& list) {
  std::vector<bool> seen;
  for (size_t i = 0; i < list.size(); ++i) {
    const JsonAt token = list.at(i);
    AddedToken added{.id = token.at("id").id(),
                     .content = token.at("content").text(),
                     .special = token.flag("special", false),
                     .normalized = token.flag("normalized", false),
                     .lstrip = token.flag("lstrip", false),
                     .rstrip = token.flag("rstrip", false)};
    if (added.content.empty()) token.at("content").fail("is empty");
    token.expect_unset("single_word");
    const auto in_vocabulary = id_of_.find(added.content);
    if (in_vocabulary == id_of_.end() || in_vocabulary->second != added.id) set_token(token, added.id, added.content);
    seen.resize(out_.tokens.size());
    if (seen[added.id]) token.fail("the id {} is given twice", added.id);
    seen[added.id] = true;
    out_.added.push_back(std::move(added));
  }
}

int32_t VocabularyReader::id_of(const JsonAt& token) const {
  const auto found = id_of_.find(token.text());
  if (found == id_of_.end()) token.fail("'{}' is not in the vocabulary", token.text());
  return found->second;
}

}  // namespace mixtape
