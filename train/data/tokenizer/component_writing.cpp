#include "train/data/tokenizer/component_writing.h"

#include "train/data/tokenizer/character_map.h"

namespace mixtape {
namespace {

using Json = nlohmann::ordered_json;

// One item stands alone, several in a Sequence.
Json sequence(std::vector<Json> items, const char* key) {
  if (items.empty()) return nullptr;
  if (items.size() == 1) return items[0];
  return {{"type", "Sequence"}, {key, items}};
}

Json byte_level(bool add_prefix_space, bool trim_offsets, bool use_regex) {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", add_prefix_space},
          {"trim_offsets", trim_offsets},
          {"use_regex", use_regex}};
}

Json replace(const char* kind, const std::string& pattern, const std::string& content) {
  return {{"type", "Replace"}, {"pattern", {{kind, pattern}}}, {"content", content}};
}

Json metaspace(const Metaspace& step) {
  using Prepend = Metaspace::Prepend;
  return {{"type", "Metaspace"},
          {"replacement", step.mark},
          {"prepend_scheme", step.prepend == Prepend::always  ? "always"
                             : step.prepend == Prepend::first ? "first"
                                                              : "never"},
          {"split", step.split}};
}

struct Normalizer {
  Json operator()(const UnicodeForm& step) const {
    constexpr const char* names[] = {"NFC", "NFD", "NFKC", "NFKD"};
    return {{"type", names[static_cast<int>(step.form)]}};
  }
  Json operator()(const Prepend& step) const { return {{"type", "Prepend"}, {"prepend", step.text}}; }
  Json operator()(const Replace& step) const { return replace("String", step.pattern, step.content); }
  Json operator()(const ReplaceBlanks& step) const { return replace("Regex", " {2,}", step.content); }
  Json operator()(const Strip& step) const {
    return {{"type", "Strip"}, {"strip_left", step.left}, {"strip_right", step.right}};
  }
  Json operator()(const Lowercase&) const { return {{"type", "Lowercase"}}; }
  Json operator()(const StripAccents&) const { return {{"type", "StripAccents"}}; }
  Json operator()(const BertNormalizer& step) const {
    return {{"type", "BertNormalizer"},
            {"clean_text", step.clean_text},
            {"handle_chinese_chars", step.handle_chinese_chars},
            {"strip_accents", step.strip_accents ? Json(*step.strip_accents) : Json(nullptr)},
            {"lowercase", step.lowercase}};
  }
  Json operator()(const Precompiled& step) const {
    return {{"type", "Precompiled"}, {"precompiled_charsmap", to_base64(step.map->bytes())}};
  }
};

struct PreTokenizer {
  Json operator()(SplitRule rule) const {
    if (rule == SplitRule::bert) return {{"type", "BertPreTokenizer"}};
    if (rule == SplitRule::words) return {{"type", "WhitespaceSplit"}};
    if (rule == SplitRule::digit || rule == SplitRule::digits)
      return {{"type", "Digits"}, {"individual_digits", rule == SplitRule::digit}};
    return {{"type", "Split"},
            {"pattern", {{"Regex", pattern_of_split_rule(rule)}}},
            {"behavior", "Isolated"},
            {"invert", false}};
  }
  Json operator()(const ByteLevel& step) const {
    return byte_level(step.add_prefix_space, true, step.split.has_value());
  }
  Json operator()(const Metaspace& step) const { return metaspace(step); }
};

struct DecoderWriter {
  Json operator()(const ByteLevelDecoder&) const { return byte_level(true, true, true); }
  Json operator()(const PieceDecoder& decoder) const {
    std::vector<Json> steps;
    for (const Replace& step : decoder.replace) steps.push_back(replace("String", step.pattern, step.content));
    if (decoder.byte_fallback) steps.push_back({{"type", "ByteFallback"}});
    if (decoder.fuse) steps.push_back({{"type", "Fuse"}});
    if (decoder.strip_space) steps.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
    // An empty Sequence joins tokens without blanks, which no decoder at all does not.
    if (steps.empty()) return {{"type", "Sequence"}, {"decoders", Json::array()}};
    return sequence(std::move(steps), "decoders");
  }
  Json operator()(const WordPieceDecoder& decoder) const {
    return {{"type", "WordPiece"}, {"prefix", decoder.prefix}, {"cleanup", decoder.cleanup}};
  }
  Json operator()(const MetaspaceDecoder& decoder) const { return metaspace(decoder.metaspace); }
  Json operator()(const BlankDecoder&) const { return nullptr; }
};

Json template_items(const TokenizerDefinition& d, const std::vector<TemplateItem>& items, Json& special) {
  Json list = Json::array();
  for (const TemplateItem& item : items) {
    if (item.kind != TemplateItem::Kind::token) {
      const char* name = item.kind == TemplateItem::Kind::first_text ? "A" : "B";
      list.push_back({{"Sequence", {{"id", name}, {"type_id", item.type}}}});
      continue;
    }
    const std::string& name = d.tokens[item.id];
    list.push_back({{"SpecialToken", {{"id", name}, {"type_id", item.type}}}});
    special[name] = {{"id", name}, {"ids", {item.id}}, {"tokens", {name}}};
  }
  return list;
}

}  // namespace

Json normalizer_json(const TokenizerDefinition& d) {
  std::vector<Json> steps;
  for (const NormalizerStep& step : d.normalizer) steps.push_back(std::visit(Normalizer{}, step));
  return sequence(std::move(steps), "normalizers");
}

Json pre_tokenizer_json(const TokenizerDefinition& d) {
  std::vector<Json> steps;
  for (const PreTokenizerStep& step : d.pre_tokenizer) steps.push_back(std::visit(PreTokenizer{}, step));
  return sequence(std::move(steps), "pretokenizers");
}

Json decoder_json(const TokenizerDefinition& d) { return std::visit(DecoderWriter{}, d.decoder); }

// RoBERTa's and BERT's own processors become the templates that they are.
Json post_processor_json(const TokenizerDefinition& d) {
  std::vector<Json> steps;
  if (d.byte_level()) steps.push_back(byte_level(true, false, true));
  if (d.text_template.is_given) {
    Json special = Json::object();
    Json single = template_items(d, d.text_template.single, special);
    Json pair = template_items(d, d.text_template.pair, special);
    steps.push_back({{"type", "TemplateProcessing"}, {"single", single}, {"pair", pair}, {"special_tokens", special}});
  }
  return sequence(std::move(steps), "processors");
}

}  // namespace mixtape
