// Writing tokenizer.json as Hugging Face's `tokenizers` does, key by key.
#include <nlohmann/json.hpp>

#include "train/data/tokenizer/tokenizer_json.h"

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

Json replace(const std::string& pattern, const std::string& content) {
  return {{"type", "Replace"}, {"pattern", {{"String", pattern}}}, {"content", content}};
}

Json added_tokens(const BpeDefinition& d) {
  Json list = Json::array();
  for (const AddedToken& token : d.added)
    list.push_back({{"id", token.id},
                    {"content", token.content},
                    {"single_word", false},
                    {"lstrip", token.lstrip},
                    {"rstrip", token.rstrip},
                    {"normalized", token.normalized},
                    {"special", token.special}});
  return list;
}

Json normalizer(const BpeDefinition& d) {
  using Kind = NormalizerStep::Kind;
  std::vector<Json> steps;
  for (const NormalizerStep& step : d.normalizer) {
    switch (step.kind) {
      case Kind::nfc:
        steps.push_back({{"type", "NFC"}});
        break;
      case Kind::nfd:
        steps.push_back({{"type", "NFD"}});
        break;
      case Kind::nfkc:
        steps.push_back({{"type", "NFKC"}});
        break;
      case Kind::nfkd:
        steps.push_back({{"type", "NFKD"}});
        break;
      case Kind::prepend:
        steps.push_back({{"type", "Prepend"}, {"prepend", step.content}});
        break;
      case Kind::replace:
        steps.push_back(replace(step.pattern, step.content));
        break;
    }
  }
  return sequence(std::move(steps), "normalizers");
}

Json pre_tokenizer(const BpeDefinition& d) {
  std::vector<Json> steps;
  for (const PreTokenizerStep& step : d.pre_tokenizer) {
    if (step.byte_level) {
      steps.push_back(byte_level(step.add_prefix_space, true, step.split.has_value()));
    } else if (step.split == SplitRule::digit || step.split == SplitRule::digits) {
      steps.push_back({{"type", "Digits"}, {"individual_digits", step.split == SplitRule::digit}});
    } else {
      steps.push_back({{"type", "Split"},
                       {"pattern", {{"Regex", pattern_of_split_rule(*step.split)}}},
                       {"behavior", "Isolated"},
                       {"invert", false}});
    }
  }
  return sequence(std::move(steps), "pretokenizers");
}

Json decoder(const BpeDefinition& d) {
  if (d.decoder.byte_level) return byte_level(true, true, true);
  std::vector<Json> steps;
  for (const auto& [pattern, content] : d.decoder.replace) steps.push_back(replace(pattern, content));
  if (d.decoder.byte_fallback) steps.push_back({{"type", "ByteFallback"}});
  if (d.decoder.fuse) steps.push_back({{"type", "Fuse"}});
  if (d.decoder.strip_space) steps.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  return sequence(std::move(steps), "decoders");
}

Json text_template(const BpeDefinition& d) {
  Json special = Json::object();
  const auto put = [&](Json& list, const std::vector<int32_t>& ids, int type) {
    for (const int32_t id : ids) {
      const std::string& name = d.tokens[id];
      list.push_back({{"SpecialToken", {{"id", name}, {"type_id", type}}}});
      special[name] = {{"id", name}, {"ids", {id}}, {"tokens", {name}}};
    }
  };
  const auto text = [&](Json& list, const char* name, int type) {
    put(list, d.text_template.before, type);
    list.push_back({{"Sequence", {{"id", name}, {"type_id", type}}}});
    put(list, d.text_template.after, type);
  };
  Json single = Json::array(), pair = Json::array();
  text(single, "A", 0);
  text(pair, "A", 0);
  text(pair, "B", 1);
  return {{"type", "TemplateProcessing"}, {"single", single}, {"pair", pair}, {"special_tokens", special}};
}

Json post_processor(const BpeDefinition& d) {
  std::vector<Json> steps;
  if (d.byte_level()) steps.push_back(byte_level(true, false, true));
  if (!d.text_template.empty()) steps.push_back(text_template(d));
  return sequence(std::move(steps), "processors");
}

Json model(const BpeDefinition& d) {
  // Appended past the map's own insertion, which would search for the key each time: quadratic.
  Json::object_t vocab;
  for (size_t id = 0; id < d.tokens.size(); ++id)
    if (d.in_model[id]) static_cast<Json::object_t::Container&>(vocab).emplace_back(d.tokens[id], id);
  Json merges = Json::array();
  for (const auto& [left, right] : d.merges) merges.push_back(Json::array({d.tokens[left], d.tokens[right]}));
  return {{"type", "BPE"},
          {"dropout", nullptr},
          {"unk_token", d.unknown ? Json(d.tokens[*d.unknown]) : Json(nullptr)},
          {"continuing_subword_prefix", nullptr},
          {"end_of_word_suffix", nullptr},
          {"fuse_unk", d.fuse_unknown},
          {"byte_fallback", d.byte_fallback},
          {"ignore_merges", d.ignore_merges},
          {"vocab", std::move(vocab)},
          {"merges", std::move(merges)}};
}

}  // namespace

std::string write_tokenizer_json(const BpeDefinition& d) {
  const Json root = {{"version", "1.0"},
                     {"truncation", nullptr},
                     {"padding", nullptr},
                     {"added_tokens", added_tokens(d)},
                     {"normalizer", normalizer(d)},
                     {"pre_tokenizer", pre_tokenizer(d)},
                     {"post_processor", post_processor(d)},
                     {"decoder", decoder(d)},
                     {"model", model(d)}};
  return root.dump(2) + "\n";
}

std::string write_tokenizer_config(const BpeDefinition& d) {
  Json root = {{"tokenizer_class", "PreTrainedTokenizerFast"}, {"clean_up_tokenization_spaces", false}};
  for (const SpecialRole& role : special_roles())
    if (const auto id = d.special.*role.id) root[role.key] = d.tokens[*id];
  return root.dump(2) + "\n";
}

}  // namespace mixtape
