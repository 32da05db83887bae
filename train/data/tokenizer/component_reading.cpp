#include "train/data/tokenizer/component_reading.h"

#include "train/data/tokenizer/character_map.h"

namespace mixtape {
namespace {

NormalizerStep read_replace(const JsonAt& step) {
  const JsonAt pattern = step.at("pattern");
  const std::string& content = step.at("content").text();
  if (pattern.has("Regex") && pattern.at("Regex").text() == " {2,}") return ReplaceBlanks{content};
  if (!pattern.has("String")) pattern.fail("only a String, or the Regex ' {{2,}}', can be replaced");
  if (pattern.at("String").text().empty()) pattern.fail("is empty");
  return Replace{pattern.at("String").text(), content};
}

NormalizerStep read_precompiled(const JsonAt& step) {
  const JsonAt map = step.at("precompiled_charsmap");
  const auto bytes = from_base64(map.text());
  if (!bytes) map.fail("is not base64");
  return Precompiled{std::make_shared<CharacterMap>(*bytes, map.source() + ": precompiled_charsmap")};
}

NormalizerStep read_bert_normalizer(const JsonAt& step) {
  BertNormalizer out{.clean_text = step.flag("clean_text", true),
                     .handle_chinese_chars = step.flag("handle_chinese_chars", true),
                     .lowercase = step.flag("lowercase", true)};
  if (step.has("strip_accents")) out.strip_accents = step.flag("strip_accents", false);
  return out;
}

NormalizerStep read_normalizer_step(const JsonAt& step) {
  using Form = UnicodeForm::Form;
  const std::string type = step.type();
  if (type == "NFC") return UnicodeForm{Form::nfc};
  if (type == "NFD") return UnicodeForm{Form::nfd};
  if (type == "NFKC") return UnicodeForm{Form::nfkc};
  if (type == "NFKD") return UnicodeForm{Form::nfkd};
  if (type == "Prepend") return Prepend{step.at("prepend").text()};
  if (type == "Replace") return read_replace(step);
  if (type == "Strip") return Strip{step.flag("strip_left", true), step.flag("strip_right", true)};
  if (type == "Lowercase") return Lowercase{};
  if (type == "StripAccents") return StripAccents{};
  if (type == "BertNormalizer") return read_bert_normalizer(step);
  if (type == "Precompiled") return read_precompiled(step);
  unsupported(step,
              "BertNormalizer, Lowercase, NFC, NFD, NFKC, NFKD, Precompiled, Prepend, Replace, Strip, StripAccents or "
              "a Sequence of them");
}

// Older files have add_prefix_space in place of prepend_scheme.
Metaspace read_metaspace(const JsonAt& step) {
  Metaspace out{.mark = step.at("replacement").text(), .split = step.flag("split", true)};
  if (out.mark.empty()) step.at("replacement").fail("is empty");
  if (!step.flag("add_prefix_space", true)) out.prepend = Metaspace::Prepend::never;
  if (!step.has("prepend_scheme")) return out;
  const std::string& scheme = step.at("prepend_scheme").text();
  if (scheme != "always" && scheme != "first" && scheme != "never")
    step.at("prepend_scheme").fail("is '{}', expected always, first or never", scheme);
  out.prepend = scheme == "always"  ? Metaspace::Prepend::always
                : scheme == "first" ? Metaspace::Prepend::first
                                    : Metaspace::Prepend::never;
  return out;
}

SplitRule read_split(const JsonAt& step) {
  if (step.at("behavior").text() != "Isolated") step.at("behavior").fail("expected Isolated");
  if (step.flag("invert", false)) step.at("invert").fail("is set, which is not supported");
  const JsonAt pattern = step.at("pattern");
  if (!pattern.has("Regex")) pattern.fail("expected a Regex");
  const std::string& regex = pattern.at("Regex").text();
  const auto rule = split_rule_of_pattern(regex);
  if (!rule) pattern.fail("unknown pattern '{}'; those of GPT-2, Llama 3, Qwen 2 and BLOOM are supported", regex);
  return *rule;
}

PreTokenizerStep read_pre_tokenizer_step(const JsonAt& step) {
  const std::string type = step.type();
  if (type == "ByteLevel") {
    ByteLevel out{.add_prefix_space = step.flag("add_prefix_space", true)};
    if (!step.flag("use_regex", true)) out.split.reset();
    return out;
  }
  if (type == "Digits") return step.flag("individual_digits", false) ? SplitRule::digit : SplitRule::digits;
  if (type == "BertPreTokenizer") return SplitRule::bert;
  if (type == "WhitespaceSplit") return SplitRule::words;
  if (type == "Metaspace") return read_metaspace(step);
  if (type == "Split") return read_split(step);
  unsupported(step, "BertPreTokenizer, ByteLevel, Digits, Metaspace, Split, WhitespaceSplit or a Sequence of them");
}

PieceDecoder read_piece_decoder(const std::vector<JsonAt>& steps) {
  PieceDecoder decoder;
  int last = 0;
  for (const JsonAt& step : steps) {
    const std::string type = step.type();
    const int place = type == "Replace" ? 1 : type == "ByteFallback" ? 2 : type == "Fuse" ? 3 : type == "Strip" ? 4 : 0;
    if (place == 0) unsupported(step, "Replace, ByteFallback, Fuse, Strip, or ByteLevel, Metaspace, WordPiece alone");
    if (place < last || (place == last && place != 1))
      step.fail("{} stands here; expected Replace, ByteFallback, Fuse, Strip in this order", type);
    if (place == 1) {
      const NormalizerStep replace = read_replace(step);
      if (!std::holds_alternative<Replace>(replace)) step.fail("only a String can be replaced");
      decoder.replace.push_back(std::get<Replace>(replace));
    }
    if (place == 2) decoder.byte_fallback = true;
    if (place == 3) decoder.fuse = true;
    if (place == 4) {
      const bool one_blank =
          step.at("content").text() == " " && step.at("start").integer() == 1 && step.at("stop").integer() == 0;
      if (!one_blank || !decoder.fuse) step.fail("only one blank at the start, after Fuse, can be stripped");
      decoder.strip_space = true;
    }
    last = place;
  }
  return decoder;
}

// Reads post-processors, whose ids have to be those of tokens.
class TemplateReader {
 public:
  explicit TemplateReader(size_t vocab_size) : vocab_size_(vocab_size) {}

  TextTemplate read(const JsonAt& step) const {
    const std::string type = step.type();
    if (type == "RobertaProcessing" || type == "BertProcessing") {
      const int32_t cls = token(step.at("cls").at(size_t{1})), sep = token(step.at("sep").at(size_t{1}));
      return type == "BertProcessing" ? TextTemplate::bert(cls, sep) : TextTemplate::roberta(cls, sep);
    }
    if (type != "TemplateProcessing")
      unsupported(step, "BertProcessing, ByteLevel, RobertaProcessing, TemplateProcessing or a Sequence of them");
    TextTemplate out{.single = items(step, "single"), .pair = items(step, "pair"), .is_given = true};
    if (texts(out.single) != std::pair(1, 0)) step.at("single").fail("expected the text A once and no other");
    if (texts(out.pair) != std::pair(1, 1)) step.at("pair").fail("expected the texts A and B, once each");
    return out;
  }

 private:
  using Kind = TemplateItem::Kind;

  std::vector<TemplateItem> items(const JsonAt& step, const char* key) const {
    std::vector<TemplateItem> out;
    const JsonAt list = step.at(key);
    for (size_t i = 0; i < list.size(); ++i) {
      const JsonAt item = list.at(i);
      const bool is_text = item.has("Sequence");
      const JsonAt value = item.at(is_text ? "Sequence" : "SpecialToken");
      const std::string& name = value.at("id").text();
      const int32_t type = value.has("type_id") ? value.at("type_id").id() : 0;
      if (is_text) {
        if (name != "A" && name != "B") value.at("id").fail("is '{}', expected A or B", name);
        out.push_back({.kind = name == "A" ? Kind::first_text : Kind::second_text, .type = type});
        continue;
      }
      const JsonAt ids = step.at("special_tokens").at(name.c_str()).at("ids");
      for (size_t k = 0; k < ids.size(); ++k) out.push_back({.id = token(ids.at(k)), .type = type});
    }
    return out;
  }

  static std::pair<int, int> texts(const std::vector<TemplateItem>& items) {
    std::pair<int, int> count;
    for (const TemplateItem& item : items) {
      count.first += item.kind == Kind::first_text;
      count.second += item.kind == Kind::second_text;
    }
    return count;
  }

  int32_t token(const JsonAt& value) const {
    const int32_t id = value.id();
    if (static_cast<size_t>(id) >= vocab_size_) value.fail("{} is no token's id", id);
    return id;
  }

  size_t vocab_size_;
};

}  // namespace

std::vector<JsonAt> sequence_items(const JsonAt& value, const char* key) {
  if (value.is_null()) return {};
  if (value.type() != "Sequence") return {value};
  std::vector<JsonAt> items;
  const JsonAt list = value.at(key);
  for (size_t i = 0; i < list.size(); ++i)
    for (const JsonAt& item : sequence_items(list.at(i), key)) items.push_back(item);
  return items;
}

void unsupported(const JsonAt& value, const char* expected) {
  value.fail("type '{}' is not supported, expected {}", value.type(), expected);
}

std::vector<NormalizerStep> read_normalizer(const JsonAt& value) {
  std::vector<NormalizerStep> steps;
  for (const JsonAt& step : sequence_items(value, "normalizers")) steps.push_back(read_normalizer_step(step));
  return steps;
}

std::vector<PreTokenizerStep> read_pre_tokenizer(const JsonAt& value) {
  std::vector<PreTokenizerStep> steps;
  for (const JsonAt& step : sequence_items(value, "pretokenizers")) {
    // After ByteLevel the text is spelled in its alphabet, which no pattern is written for.
    if (!steps.empty() && std::holds_alternative<ByteLevel>(steps.back()))
      step.fail("ByteLevel has to be the last step");
    steps.push_back(read_pre_tokenizer_step(step));
  }
  return steps;
}

Decoder read_decoder(const JsonAt& value) {
  const std::vector<JsonAt> steps = sequence_items(value, "decoders");
  if (steps.size() != 1) return read_piece_decoder(steps);
  const JsonAt& step = steps[0];
  const std::string type = step.type();
  if (type == "ByteLevel") return ByteLevelDecoder{};
  if (type == "Metaspace") return MetaspaceDecoder{read_metaspace(step)};
  if (type == "WordPiece") return WordPieceDecoder{step.at("prefix").text(), step.flag("cleanup", true)};
  return read_piece_decoder(steps);
}

TextTemplate read_post_processor(const JsonAt& value, size_t vocab_size) {
  TextTemplate out;
  for (const JsonAt& step : sequence_items(value, "processors")) {
    if (step.type() == "ByteLevel") continue;
    if (out.is_given) step.fail("a second template, which is not supported");
    out = TemplateReader(vocab_size).read(step);
  }
  return out;
}

}  // namespace mixtape
