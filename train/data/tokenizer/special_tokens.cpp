#include "train/data/tokenizer/special_tokens.h"

namespace mixtape {

const std::vector<SpecialRole>& special_roles() {
  using S = SpecialTokens;
  static const std::vector<SpecialRole> roles = {
      {"bos_token", &S::bos, {"<s>", "<|begin_of_text|>", "<bos>", "[CLS]"}},
      {"eos_token", &S::eos, {"<|endoftext|>", "</s>", "<|end_of_text|>", "<eos>", "[SEP]"}},
      {"unk_token", &S::unk, {"<unk>", "[UNK]"}},
      {"pad_token", &S::pad, {"<pad>", "[PAD]", "<|pad|>", "<|finetune_right_pad_id|>"}},
      {"cls_token", &S::cls, {"[CLS]"}},
      {"sep_token", &S::sep, {"[SEP]"}},
      {"mask_token", &S::mask, {"[MASK]", "<mask>"}},
  };
  return roles;
}

std::string sentinel_name(size_t index) { return "<extra_id_" + std::to_string(index) + ">"; }

void find_special_tokens(SpecialTokens& tokens,
                         const std::function<std::optional<int32_t>(std::string_view name)>& special_id) {
  for (const SpecialRole& role : special_roles())
    for (const std::string_view name : role.names)
      if (!(tokens.*role.id)) tokens.*role.id = special_id(name);
  if (tokens.mask && !tokens.cls) tokens.cls = tokens.bos;  // RoBERTa, BART: <s> and </s> are both
  if (tokens.mask && !tokens.sep) tokens.sep = tokens.eos;
  if (!tokens.sentinels.empty()) return;
  while (const auto id = special_id(sentinel_name(tokens.sentinels.size()))) tokens.sentinels.push_back(*id);
}

}  // namespace mixtape
