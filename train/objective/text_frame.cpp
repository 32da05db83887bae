#include "train/objective/text_frame.h"

#include <algorithm>

#include "core/base/error.h"
#include "train/data/tokenizer/tokenizer.h"

namespace mixtape {
namespace {

using Tokens = std::vector<int32_t>;
constexpr std::string_view probe = "a", other_probe = "b";

void append(Tokens& to, std::span<const int32_t> tokens) { to.insert(to.end(), tokens.begin(), tokens.end()); }

// Shortens so that both together have at most `room`: the longer one first, and of an odd room it keeps one more.
void cut_pair(Tokens& first, Tokens& second, size_t room) {
  if (first.size() + second.size() <= room) return;
  Tokens &longer = first.size() > second.size() ? first : second, &shorter = &longer == &first ? second : first;
  shorter.resize(std::min(shorter.size(), room / 2));
  longer.resize(room - shorter.size());
}

}  // namespace

TextFrame::TextFrame(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {
  find_single();
  find_pair();
}

void TextFrame::find_single() {
  const Tokens text = tokenizer_.encode(probe), framed = tokenizer_.encode(probe, {.add_special = true});
  const auto at = std::search(framed.begin(), framed.end(), text.begin(), text.end());
  if (text.empty() || at == framed.end())
    throw DataError("the tokenizer ({}) does not keep a text as it is inside its template", tokenizer_.description());
  before_.assign(framed.begin(), at);
  after_.assign(at + long(text.size()), framed.end());
  const SpecialTokens& special = tokenizer_.special_tokens();
  if (before_.empty() && after_.empty() && special.cls && special.sep) {
    before_ = {*special.cls};
    after_ = {*special.sep};
  }
}

void TextFrame::find_pair() {
  const Tokens first = tokenizer_.encode(probe), second = tokenizer_.encode(other_probe);
  const EncodedPair framed = tokenizer_.encode_pair(probe, other_probe);
  const Tokens& ids = framed.ids;
  const auto at_first = std::search(ids.begin(), ids.end(), first.begin(), first.end());
  const auto end_first = at_first == ids.end() ? at_first : at_first + long(first.size());
  const auto at_second = std::search(end_first, ids.end(), second.begin(), second.end());
  if (second.empty() || at_second == ids.end())
    throw DataError("the tokenizer ({}) does not keep texts as they are inside its template", tokenizer_.description());
  const auto end_second = at_second + long(second.size());
  const auto type_at = [&](Tokens::const_iterator at) {
    return at == ids.end() || framed.types.empty() ? 0 : framed.types[size_t(at - ids.begin())];
  };
  pair_before_.assign(ids.begin(), at_first);
  between_.assign(end_first, at_second);
  pair_after_.assign(end_second, ids.end());
  between_type_ = between_.empty() ? 0 : type_at(end_first);
  second_type_ = type_at(at_second);
  after_type_ = type_at(end_second);
  if (between_.empty() && !before_.empty() && !after_.empty()) {  // the template is find_single's own
    pair_before_ = before_;
    between_ = pair_after_ = after_;
    second_type_ = 0;
  }
}

Tokens TextFrame::enclosed(std::span<const int32_t> tokens) const {
  Tokens all = before_;
  append(all, tokens);
  append(all, after_);
  return all;
}

Example TextFrame::one(std::string_view text, int32_t most) const {
  Tokens tokens = tokenizer_.encode(text);
  const size_t frame = before_.size() + after_.size(), room = size_t(most) > frame ? size_t(most) - frame : 0;
  const bool cut = tokens.size() > room;
  if (cut) tokens.resize(room);
  return {.tokens = enclosed(tokens), .cut = cut};
}

Example TextFrame::pair(std::string_view first_text, std::string_view second_text, int32_t most) const {
  Tokens first = tokenizer_.encode(first_text), second = tokenizer_.encode(second_text);
  const size_t frame = pair_before_.size() + between_.size() + pair_after_.size();
  const size_t room = size_t(most) > frame ? size_t(most) - frame : 0;
  Example example{.cut = first.size() + second.size() > room};
  cut_pair(first, second, room);
  const auto add = [&](std::span<const int32_t> tokens, int32_t type) {
    append(example.tokens, tokens);
    example.types.resize(example.tokens.size(), type);
  };
  add(pair_before_, 0);
  add(first, 0);
  add(between_, between_type_);
  add(second, second_type_);
  add(pair_after_, after_type_);
  return example;
}

}  // namespace mixtape
