// The tokens that have a role in training: which id ends a text, which one is the mask, which are T5's sentinels.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace mixtape {

// Ids, where the tokenizer has them.
struct SpecialTokens {
  std::optional<int32_t> bos, eos, unk, pad, cls, sep, mask;
  // <extra_id_0>, <extra_id_1>, ... in this order, without gaps. In T5's vocabularies their ids descend from the end.
  std::vector<int32_t> sentinels;

  bool operator==(const SpecialTokens&) const = default;
};

// A role, as tokenizer_config.json and special_tokens_map.json spell it, and the names that tokens of this role have in
// published tokenizers, the most usual first.
struct SpecialRole {
  const char* key;
  std::optional<int32_t> SpecialTokens::*id;
  std::vector<std::string_view> names;
};
const std::vector<SpecialRole>& special_roles();

std::string sentinel_name(size_t index);  // <extra_id_7>

// Fills the roles that are not set yet by the usual names. `special_id` gives the id of a special token, or nothing.
void find_special_tokens(SpecialTokens& tokens,
                         const std::function<std::optional<int32_t>(std::string_view name)>& special_id);

}  // namespace mixtape
