#include "train/data/tokenizer/vocabulary_files.h"

#include <algorithm>

#include "core/base/utf8.h"
#include "train/data/tokenizer/vocabulary_reader.h"

namespace mixtape {
namespace {

constexpr std::string_view special_names[] = {"<|endoftext|>", "<s>", "</s>", "<pad>", "<unk>", "<mask>"};
constexpr int64_t most_extra_ids = 1 << 16;

// Lines without their ends; the last one may lack it.
std::vector<std::string_view> lines_of(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    if (line.ends_with('\r')) line.remove_suffix(1);
    lines.push_back(line);
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return lines;
}

nlohmann::json merge_lines(std::string_view text) {
  nlohmann::json merges = nlohmann::json::array();
  for (const std::string_view line : lines_of(text))
    if (!line.empty() && !(merges.empty() && line.starts_with("#version"))) merges.emplace_back(std::string(line));
  return merges;
}

std::optional<int32_t> find_token(const TokenizerDefinition& definition, std::string_view name) {
  const auto found = std::ranges::find(definition.tokens, name);
  if (found == definition.tokens.end()) return std::nullopt;
  return static_cast<int32_t>(found - definition.tokens.begin());
}

}  // namespace

TokenizerDefinition read_vocab_and_merges(const NamedText& vocab, const NamedText& merges) {
  const nlohmann::json json = parse_json(vocab.text, vocab.source);
  const nlohmann::json lines = merge_lines(merges.text);
  TokenizerDefinition out;
  VocabularyReader reader(out);
  reader.read_vocabulary(JsonAt(json, vocab.source));
  reader.expect_no_holes(JsonAt(json, vocab.source));
  out.model = BpeRules{.merges = reader.read_merges(JsonAt(lines, merges.source))};
  out.pre_tokenizer.push_back(ByteLevel{});
  for (size_t id = 0; id < out.tokens.size(); ++id)
    if (std::ranges::find(special_names, out.tokens[id]) != std::end(special_names))
      out.added.push_back(
          {.id = static_cast<int32_t>(id), .content = out.tokens[id], .lstrip = out.tokens[id] == "<mask>"});
  const auto bos = find_token(out, "<s>"), eos = find_token(out, "</s>");
  if (bos && eos && find_token(out, "<mask>")) {
    out.special.bos = bos;
    out.special.eos = eos;
    out.text_template = TextTemplate::roberta(*bos, *eos);
  }
  find_roles(out);
  return out;
}

TokenizerDefinition read_vocab_txt(const NamedText& vocab, const BertNormalizer& normalizer) {
  std::vector<std::string> tokens;
  for (const std::string_view line : lines_of(vocab.text)) {
    if (!is_utf8(line)) throw DataError("{}: line {} is not UTF-8", vocab.source, tokens.size() + 1);
    tokens.emplace_back(line);
  }
  return bert_definition(std::move(tokens), normalizer, vocab.source);
}

std::string write_vocab_txt(const TokenizerDefinition& definition) {
  std::string out;
  for (const std::string& token : definition.tokens) out += token + "\n";
  return out;
}

bool is_bert_layout(const TokenizerDefinition& d) {
  const auto* rules = std::get_if<WordPieceRules>(&d.model);
  if (!rules || rules->prefix != "##" || d.tokens[rules->unknown] != "[UNK]" || !d.special.cls || !d.special.sep)
    return false;
  const auto* normalizer = d.normalizer.size() == 1 ? std::get_if<BertNormalizer>(&d.normalizer[0]) : nullptr;
  const auto* split = d.pre_tokenizer.size() == 1 ? std::get_if<SplitRule>(&d.pre_tokenizer[0]) : nullptr;
  const TextTemplate usual = TextTemplate::bert(*d.special.cls, *d.special.sep);
  const auto in_vocabulary = [&](const AddedToken& token) { return d.in_model[token.id]; };
  const auto one_line = [](const std::string& token) { return token.find_first_of("\r\n") == std::string::npos; };
  return normalizer && normalizer->clean_text && split && *split == SplitRule::bert && d.text_template.is_given &&
         d.text_template.single == usual.single && d.text_template.pair == usual.pair &&
         std::ranges::all_of(d.added, in_vocabulary) && std::ranges::all_of(d.tokens, one_line);
}

BertNormalizer read_bert_normalizer(const NamedText& config) {
  const nlohmann::json json = parse_json(config.text, config.source);
  const JsonAt root(json, config.source);
  BertNormalizer out{.handle_chinese_chars = root.flag("tokenize_chinese_chars", true),
                     .lowercase = root.flag("do_lower_case", true)};
  if (root.has("strip_accents")) out.strip_accents = root.flag("strip_accents", false);
  return out;
}

int32_t read_extra_ids(const NamedText& config) {
  const nlohmann::json json = parse_json(config.text, config.source);
  const JsonAt root(json, config.source);
  if (!root.has("extra_ids")) {
    const bool t5 = root.has("tokenizer_class") && root.at("tokenizer_class").text().starts_with("T5Tokenizer");
    return t5 ? 100 : 0;
  }
  const int64_t count = root.at("extra_ids").integer();
  if (count < 0 || count > most_extra_ids)
    root.at("extra_ids").fail("is {}, expected 0 to {} sentinels", count, most_extra_ids);
  return static_cast<int32_t>(count);
}

void read_template(const NamedText& config, TokenizerDefinition& definition) {
  const nlohmann::json json = parse_json(config.text, config.source);
  const JsonAt root(json, config.source);
  if (definition.text_template.is_given || !root.flag("add_bos_token", false)) return;
  read_roles(config, definition);
  if (!definition.special.bos) root.at("add_bos_token").fail("is set, but there is no bos_token");
  definition.text_template = TextTemplate::llama(*definition.special.bos);
}

void read_roles(const NamedText& config, TokenizerDefinition& definition) {
  const nlohmann::json json = parse_json(config.text, config.source);
  const JsonAt root(json, config.source);
  for (const SpecialRole& role : special_roles()) {
    if (!root.has(role.key)) continue;
    JsonAt name = root.at(role.key);
    if (name.value().is_object()) name = name.at("content");
    if (const auto id = find_token(definition, name.text()))
      definition.special.*role.id = id;
    else if (role.id == &SpecialTokens::bos || role.id == &SpecialTokens::eos)
      name.fail("'{}' is no token of the tokenizer beside this file", name.text());
  }
}

std::string write_tokenizer_config(const TokenizerDefinition& d) {
  using Json = nlohmann::ordered_json;
  const bool bert = is_bert_layout(d);
  Json root = {{"tokenizer_class", bert ? "BertTokenizer" : "PreTrainedTokenizerFast"},
               {"clean_up_tokenization_spaces", false}};
  if (bert) {
    const auto& normalizer = std::get<BertNormalizer>(d.normalizer[0]);
    root["do_lower_case"] = normalizer.lowercase;
    root["strip_accents"] = normalizer.strip_accents ? Json(*normalizer.strip_accents) : Json(nullptr);
    root["tokenize_chinese_chars"] = normalizer.handle_chinese_chars;
  }
  for (const SpecialRole& role : special_roles()) {
    const auto id = d.special.*role.id;
    const bool implied = bert && (role.id == &SpecialTokens::bos || role.id == &SpecialTokens::eos);  // cls and sep
    if (id && !implied) root[role.key] = d.tokens[*id];
  }
  return root.dump(2) + "\n";
}

std::string write_t5_config(const SpecialTokens& special) {
  const nlohmann::ordered_json root = {{"tokenizer_class", "T5Tokenizer"}, {"extra_ids", special.sentinels.size()}};
  return root.dump(2) + "\n";
}

}  // namespace mixtape
