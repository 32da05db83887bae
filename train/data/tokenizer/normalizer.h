// The normalizations of a tokenizer.json: what happens to a text before it is cut into pieces.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace mixtape {

class CharacterMap;

// The names are those of tokenizer.json.
struct UnicodeForm {
  enum class Form { nfc, nfd, nfkc, nfkd } form = Form::nfc;
};
struct Prepend {  // to a text that is not empty
  std::string text;
};
struct Replace {
  std::string pattern, content;
};
struct ReplaceBlanks {  // runs of at least two blanks: the regular expression " {2,}"
  std::string content;
};
struct Strip {  // white space at the ends
  bool left = true, right = true;
};
struct Lowercase {};
struct StripAccents {};  // combining marks go; useful after NFD
// BERT's: control characters go, white space becomes blanks; blanks around Chinese characters; accents; case.
struct BertNormalizer {
  bool clean_text = true;
  bool handle_chinese_chars = true;
  std::optional<bool> strip_accents;  // as `lowercase` if not set
  bool lowercase = true;
};
struct Precompiled {  // SentencePiece's table (nmt_nfkc and the like)
  std::shared_ptr<const CharacterMap> map;
};

using NormalizerStep = std::variant<UnicodeForm, Prepend, Replace, ReplaceBlanks, Strip, Lowercase, StripAccents,
                                    BertNormalizer, Precompiled>;

// `text` after all steps. Bytes that are not UTF-8 become U+FFFD if a step looks at characters.
std::string normalize(const std::vector<NormalizerStep>& steps, std::string_view text);

// Every occurrence of `pattern`, from the left; `pattern` is not empty.
std::string replace_all(std::string_view text, std::string_view pattern, std::string_view content);

}  // namespace mixtape
