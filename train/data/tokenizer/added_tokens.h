// Finding added tokens in text: leftmost first, and the longest where several begin at one place.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "train/data/tokenizer/definition.h"

namespace mixtape {

class AddedTokenMatcher {
 public:
  explicit AddedTokenMatcher(std::vector<AddedToken> tokens);

  struct Match {
    size_t begin, end;  // with the white space that the token takes along
    int32_t id;
  };
  // The first match that begins at `from` or later. Special tokens count only with `parse_special`.
  std::optional<Match> find(std::string_view text, size_t from, bool parse_special) const;

  // Calls on_text(string_view) and on_token(id) for the parts of `text`, in order.
  template <class OnText, class OnToken>
  void split(std::string_view text, bool parse_special, OnText&& on_text, OnToken&& on_token) const {
    size_t at = 0;
    while (const auto match = find(text, at, parse_special)) {
      if (match->begin > at) on_text(text.substr(at, match->begin - at));
      on_token(match->id);
      at = match->end;
    }
    if (at < text.size()) on_text(text.substr(at));
  }

 private:
  std::vector<AddedToken> tokens_;     // by first byte, then the longest first
  std::array<uint32_t, 257> first_{};  // tokens_[first_[b] .. first_[b + 1]) begin with byte b
  bool only_special_ = true;
};

}  // namespace mixtape
