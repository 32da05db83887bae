#include "train/data/tokenizer/normalizer.h"

#include <unicode/bytestream.h>
#include <unicode/normalizer2.h>

#include "core/base/error.h"
#include "core/base/utf8.h"

namespace mixtape {
namespace {

std::string unicode_form(NormalizerStep::Kind kind, const std::string& text) {
  using Kind = NormalizerStep::Kind;
  UErrorCode status = U_ZERO_ERROR;
  const icu::Normalizer2* form = kind == Kind::nfc    ? icu::Normalizer2::getNFCInstance(status)
                                 : kind == Kind::nfd  ? icu::Normalizer2::getNFDInstance(status)
                                 : kind == Kind::nfkc ? icu::Normalizer2::getNFKCInstance(status)
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

std::string replace_all(const std::string& text, const std::string& pattern, const std::string& content) {
  std::string out;
  size_t at = 0;
  for (size_t found; (found = text.find(pattern, at)) != std::string::npos; at = found + pattern.size())
    out.append(text, at, found - at).append(content);
  return out.append(text, at);
}

}  // namespace

std::string normalize(const std::vector<NormalizerStep>& steps, std::string_view text) {
  std::string out(text);
  for (const NormalizerStep& step : steps) {
    switch (step.kind) {
      case NormalizerStep::Kind::prepend:
        if (!out.empty()) out.insert(0, step.content);
        break;
      case NormalizerStep::Kind::replace:
        out = replace_all(out, step.pattern, step.content);
        break;
      default:
        out = unicode_form(step.kind, is_utf8(out) ? out : to_valid_utf8(out));
    }
  }
  return out;
}

}  // namespace mixtape
