#include "train/data/tokenizer/normalizer.h"

#include <unicode/bytestream.h>
#include <unicode/normalizer2.h>
#include <unicode/uchar.h>

#include <algorithm>

#include "core/base/error.h"
#include "core/base/utf8.h"
#include "train/data/tokenizer/character_map.h"

namespace mixtape {
namespace {

std::string normalized(const UnicodeForm& step, const std::string& text) {
  using Form = UnicodeForm::Form;
  UErrorCode status = U_ZERO_ERROR;
  const icu::Normalizer2* form = step.form == Form::nfc    ? icu::Normalizer2::getNFCInstance(status)
                                 : step.form == Form::nfd  ? icu::Normalizer2::getNFDInstance(status)
                                 : step.form == Form::nfkc ? icu::Normalizer2::getNFKCInstance(status)
                                                           : icu::Normalizer2::getNFKDInstance(status);
  std::string out;
  if (U_SUCCESS(status)) {
    icu::StringByteSink<std::string> sink(&out, static_cast<int32_t>(text.size()));
    form->normalizeUTF8(0, text, sink, nullptr, status);
  }
  if (U_FAILURE(status))
    throw DataError("Unicode normalization of {} bytes failed: {}", text.size(), u_errorName(status));
  return out;
}

// f(code, out) for each character.
template <class F>
std::string map_characters(const std::string& text, F&& f) {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const Utf8Char c = utf8_char(text, at);
    f(c.code, out);
    at += c.length;
  }
  return out;
}

bool is_space(uint32_t code) { return u_isUWhiteSpace(static_cast<UChar32>(code)); }
uint32_t category(uint32_t code) { return U_GET_GC_MASK(static_cast<UChar32>(code)); }

// Character by character, as Rust does it: the one letter that becomes two is İ.
void append_lower(uint32_t code, std::string& out) {
  if (code == 0x130)
    out += "i\u0307";
  else
    append_utf8(out, static_cast<uint32_t>(u_tolower(static_cast<UChar32>(code))));
}

bool is_chinese(uint32_t c) {
  return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) || (c >= 0x20000 && c <= 0x2A6DF) ||
         (c >= 0x2A700 && c <= 0x2B73F) || (c >= 0x2B740 && c <= 0x2B81F) || (c >= 0x2B920 && c <= 0x2CEAF) ||
         (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x2F800 && c <= 0x2FA1F);
}

std::string normalized(const Prepend& step, const std::string& text) { return text.empty() ? text : step.text + text; }
std::string normalized(const Replace& step, const std::string& text) {
  return replace_all(text, step.pattern, step.content);
}

std::string normalized(const ReplaceBlanks& step, const std::string& text) {
  std::string out;
  for (size_t at = 0, end; at < text.size(); at = end) {
    end = std::min(text.find_first_not_of(' ', at), text.size());
    if (end == at) end = std::min(text.find(' ', at), text.size());
    if (text[at] == ' ' && end - at >= 2)
      out += step.content;
    else
      out.append(text, at, end - at);
  }
  return out;
}

std::string normalized(const Strip& step, const std::string& text) {
  size_t begin = 0, end = 0;  // `end`: behind the last character that is not white space
  bool leading = true;
  for (size_t at = 0; at < text.size();) {
    const Utf8Char c = utf8_char(text, at);
    at += c.length;
    if (is_space(c.code)) {
      if (leading && step.left) begin = at;
    } else {
      leading = false;
      end = at;
    }
  }
  if (!step.right) end = text.size();
  return end > begin ? text.substr(begin, end - begin) : std::string();
}

std::string normalized(const Lowercase&, const std::string& text) { return map_characters(text, append_lower); }

std::string normalized(const StripAccents&, const std::string& text) {
  return map_characters(text, [](uint32_t code, std::string& out) {
    if (!(category(code) & U_GC_M_MASK)) append_utf8(out, code);
  });
}

std::string without_nonspacing_marks(const std::string& text) {
  const std::string decomposed = normalized(UnicodeForm{UnicodeForm::Form::nfd}, text);
  return map_characters(decomposed, [](uint32_t code, std::string& out) {
    if (!(category(code) & U_GC_MN_MASK)) append_utf8(out, code);
  });
}

bool is_ascii(const std::string& text) {
  return std::ranges::all_of(text, [](char c) { return static_cast<uint8_t>(c) < 0x80; });
}

// Appends what BERT's cleaning leaves of a character. Control, format and private characters go, also those that are
// white space elsewhere, but for the first three.
void append_clean(uint32_t code, std::string& out) {
  const bool usual_space = code == '\t' || code == '\n' || code == '\r';
  if (code == 0 || code == 0xFFFD || (!usual_space && category(code) & (U_GC_CC_MASK | U_GC_CF_MASK | U_GC_CO_MASK)))
    return;
  if (usual_space || is_space(code))
    out += ' ';
  else
    append_utf8(out, code);
}

std::string normalized(const BertNormalizer& step, const std::string& text) {
  const bool strip_accents = step.strip_accents.value_or(step.lowercase);
  std::string out = text;
  if (step.clean_text) out = map_characters(out, append_clean);
  const bool ascii = is_ascii(out);  // no accents and no Chinese
  if (step.handle_chinese_chars && !ascii)
    out = map_characters(out, [](uint32_t code, std::string& spaced) {
      if (is_chinese(code)) spaced += ' ';
      append_utf8(spaced, code);
      if (is_chinese(code)) spaced += ' ';
    });
  if (strip_accents && !ascii) out = without_nonspacing_marks(out);
  if (step.lowercase) out = map_characters(out, append_lower);
  return out;
}

std::string normalized(const Precompiled& step, const std::string& text) { return step.map->apply(text); }

}  // namespace

std::string replace_all(std::string_view text, std::string_view pattern, std::string_view content) {
  std::string out;
  size_t at = 0;
  for (size_t found; (found = text.find(pattern, at)) != text.npos; at = found + pattern.size())
    out.append(text, at, found - at).append(content);
  return out.append(text, at);
}

std::string normalize(const std::vector<NormalizerStep>& steps, std::string_view text) {
  std::string out(text);
  for (const NormalizerStep& step : steps) {
    const bool any_bytes = std::holds_alternative<Prepend>(step) || std::holds_alternative<Replace>(step);
    if (!any_bytes && !is_utf8(out)) out = to_valid_utf8(out);
    out = std::visit([&](const auto& s) { return normalized(s, out); }, step);
  }
  return out;
}

}  // namespace mixtape
