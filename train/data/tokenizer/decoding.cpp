#include "train/data/tokenizer/decoding.h"

#include <utility>

#include "core/base/utf8.h"
#include "train/data/tokenizer/byte_level.h"
#include "train/data/tokenizer/token_model.h"

namespace mixtape {
namespace {

// English as it is written: no blank before punctuation and contractions.
std::string cleaned_up(std::string text) {
  constexpr std::pair<const char*, const char*> rules[] = {
      {" .", "."},   {" ?", "?"},           {" !", "!"},   {" ,", ","},     {" ' ", "'"},    {" n't", "n't"},
      {" 'm", "'m"}, {" do not", " don't"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"},
  };
  for (const auto& [from, to] : rules) text = replace_all(text, from, to);
  return text;
}

struct Middle {
  std::string_view token;

  DecodedToken operator()(const ByteLevelDecoder&) const {
    return {from_byte_level(token).value_or(std::string(token))};
  }
  DecodedToken operator()(const PieceDecoder& decoder) const {
    if (const auto byte = byte_of_spelling(token); byte && decoder.byte_fallback)
      return {std::string(1, static_cast<char>(*byte)), true};
    std::string text(token);
    for (const Replace& replace : decoder.replace) text = replace_all(text, replace.pattern, replace.content);
    return {text};
  }
  DecodedToken operator()(const WordPieceDecoder& decoder) const {
    const bool continues = token.starts_with(decoder.prefix);
    std::string text = continues ? std::string(token.substr(decoder.prefix.size())) : " " + std::string(token);
    return {decoder.cleanup ? cleaned_up(std::move(text)) : text};
  }
  DecodedToken operator()(const MetaspaceDecoder& decoder) const {
    return {replace_all(token, decoder.metaspace.mark, " ")};
  }
  DecodedToken operator()(const BlankDecoder&) const { return {" " + std::string(token)}; }
};

struct First {
  std::string_view token, bytes;

  std::string operator()(const ByteLevelDecoder&) const { return std::string(bytes); }
  std::string operator()(const PieceDecoder& decoder) const {
    return std::string(bytes.substr(decoder.strip_space && bytes.starts_with(' ')));
  }
  std::string operator()(const WordPieceDecoder& decoder) const {
    return decoder.cleanup ? cleaned_up(std::string(token)) : std::string(token);
  }
  std::string operator()(const MetaspaceDecoder& decoder) const {
    if (decoder.metaspace.prepend == Metaspace::Prepend::never) return std::string(bytes);
    return replace_all(token, decoder.metaspace.mark, "");
  }
  std::string operator()(const BlankDecoder&) const { return std::string(token); }
};

}  // namespace

DecodedToken decode_token(const Decoder& decoder, std::string_view token) { return std::visit(Middle{token}, decoder); }

std::string decode_first_token(const Decoder& decoder, std::string_view token, std::string_view bytes) {
  return std::visit(First{token, bytes}, decoder);
}

void TextJoiner::append(std::string_view bytes, bool is_fallback_byte) {
  if (is_fallback_byte) {
    run_ += bytes;
    return;
  }
  end_run();
  text_ += bytes;
}

void TextJoiner::end_run() {
  if (is_utf8(run_))
    text_ += run_;
  else
    for (size_t i = 0; i < run_.size(); ++i) text_ += replacement_text;
  run_.clear();
}

std::string TextJoiner::finish() {
  end_run();
  return byte_level_ ? to_valid_utf8(text_) : std::move(text_);
}

}  // namespace mixtape
