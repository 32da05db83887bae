// Reading tokenizer.json and its older relatives.
#include <algorithm>
#include <initializer_list>
#include <unordered_map>

#include "train/data/tokenizer/json_reading.h"
#include "train/data/tokenizer/tokenizer_json.h"

namespace mixtape {
namespace {

// The items of a Sequence under `key`, or the value itself as the only item; nothing for null.
std::vector<JsonAt> sequence(const JsonAt& value, const char* key) {
  if (value.is_null()) return {};
  if (value.type() != "Sequence") return {value};
  std::vector<JsonAt> items;
  const JsonAt list = value.at(key);
  for (size_t i = 0; i < list.size(); ++i)
    for (const JsonAt& item : sequence(list.at(i), key)) items.push_back(item);
  return items;
}

[[noreturn]] void unsupported(const JsonAt& value, const char* expected) {
  value.fail("type '{}' is not supported, expected {}", value.type(), expected);
}

NormalizerStep read_normalizer(const JsonAt& step) {
  using Kind = NormalizerStep::Kind;
  const std::string type = step.type();
  if (type == "NFC") return {Kind::nfc, {}, {}};
  if (type == "NFD") return {Kind::nfd, {}, {}};
  if (type == "NFKC") return {Kind::nfkc, {}, {}};
  if (type == "NFKD") return {Kind::nfkd, {}, {}};
  if (type == "Prepend") return {Kind::prepend, {}, step.at("prepend").text()};
  if (type != "Replace") unsupported(step, "NFC, NFD, NFKC, NFKD, Prepend, Replace or a Sequence of them");
  const JsonAt pattern = step.at("pattern");
  if (!pattern.has("String")) pattern.fail("only a String can be replaced");
  const std::string from = pattern.at("String").text();
  if (from.empty()) pattern.fail("is empty");
  return {Kind::replace, from, step.at("content").text()};
}

PreTokenizerStep read_pre_tokenizer(const JsonAt& step) {
  const std::string type = step.type();
  if (type == "ByteLevel") {
    PreTokenizerStep out{.byte_level = true, .add_prefix_space = step.flag("add_prefix_space", true)};
    if (step.flag("use_regex", true)) out.split = SplitRule::gpt2;
    return out;
  }
  if (type == "Digits") return {.split = step.flag("individual_digits", false) ? SplitRule::digit : SplitRule::digits};
  if (type != "Split") unsupported(step, "ByteLevel, Digits, Split or a Sequence of them");
  if (step.at("behavior").text() != "Isolated") step.at("behavior").fail("expected Isolated");
  if (step.flag("invert", false)) step.at("invert").fail("is set, which is not supported");
  const JsonAt pattern = step.at("pattern");
  if (!pattern.has("Regex")) pattern.fail("expected a Regex");
  const std::string& regex = pattern.at("Regex").text();
  const auto rule = split_rule_of_pattern(regex);
  if (!rule) pattern.fail("unknown pattern '{}'; those of GPT-2, Llama 3, Qwen 2 and BLOOM are supported", regex);
  return {.split = rule};
}

BpeDecoder read_decoder(const JsonAt& value) {
  BpeDecoder decoder{.byte_level = false};
  const char* order = "expected ByteLevel alone, or Replace, ByteFallback, Fuse, Strip in this order";
  int last = 0;
  for (const JsonAt& step : sequence(value, "decoders")) {
    const std::string type = step.type();
    const int place = type == "ByteLevel"      ? 1
                      : type == "Replace"      ? 2
                      : type == "ByteFallback" ? 3
                      : type == "Fuse"         ? 4
                      : type == "Strip"        ? 5
                                               : 0;
    if (place == 0) unsupported(step, "ByteLevel, Replace, ByteFallback, Fuse, Strip or a Sequence of them");
    if (place < last || (place == last && place != 2) || (last == 1)) step.fail("{} stands here; {}", type, order);
    if (place == 1) decoder.byte_level = true;
    if (place == 2) {
      const NormalizerStep replace = read_normalizer(step);
      decoder.replace.emplace_back(replace.pattern, replace.content);
    }
    if (place == 3) decoder.byte_fallback = true;
    if (place == 4) decoder.fuse = true;
    if (place == 5) {
      const bool one_blank =
          step.at("content").text() == " " && step.at("start").integer() == 1 && step.at("stop").integer() == 0;
      if (!one_blank || !decoder.fuse) step.fail("only one blank at the start, after Fuse, can be stripped");
      decoder.strip_space = true;
    }
    last = place;
  }
  return decoder;
}

class TokenizerJsonReader {
 public:
  explicit TokenizerJsonReader(const JsonAt& root) : root_(root) {}

  BpeDefinition read() {
    const JsonAt model = root_.at("model");
    if (model.has("type") && model.type() != "BPE") unsupported(model, "BPE");
    read_vocabulary(model.at("vocab"));
    read_added();
    expect_no_holes();
    read_merges(model.at("merges"));
    read_model_settings(model);
    if (root_.has("normalizer"))
      for (const JsonAt& step : sequence(root_.at("normalizer"), "normalizers"))
        out_.normalizer.push_back(read_normalizer(step));
    if (root_.has("pre_tokenizer"))
      for (const JsonAt& step : sequence(root_.at("pre_tokenizer"), "pretokenizers"))
        out_.pre_tokenizer.push_back(read_pre_tokenizer(step));
    check_byte_level_is_last();
    out_.decoder =
        root_.has("decoder") ? read_decoder(root_.at("decoder")) : BpeDecoder{.byte_level = out_.byte_level()};
    if (root_.has("post_processor"))
      for (const JsonAt& step : sequence(root_.at("post_processor"), "processors")) read_post_processor(step);
    find_roles(out_);
    return std::move(out_);
  }

  void read_vocabulary(const JsonAt& vocab) {
    for (const auto& [token, value] : vocab.object().items()) {
      const int32_t id = JsonAt(value, fmt::format("{}: the id of '{}'", vocab.source(), token)).id();
      set_token(vocab, id, token);
      out_.in_model[id] = true;
    }
    if (out_.tokens.empty()) vocab.fail("is empty");
  }

  void read_merges(const JsonAt& merges) {
    for (size_t i = 0; i < merges.size(); ++i) {
      const nlohmann::json& merge = merges.value()[i];
      std::string_view left, right;
      if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
        left = merge[0].get_ref<const std::string&>();
        right = merge[1].get_ref<const std::string&>();
      } else if (merge.is_string()) {
        const std::string_view line = merge.get_ref<const std::string&>();
        const size_t blank = line.find(' ');
        if (blank == line.npos || line.find(' ', blank + 1) != line.npos)
          merges.at(i).fail("'{}': expected two tokens with one blank between them", line);
        left = line.substr(0, blank);
        right = line.substr(blank + 1);
      } else {
        merges.at(i).fail("expected two tokens");
      }
      add_merge(merges, i, left, right);
    }
  }

  void add_merge(const JsonAt& merges, size_t i, std::string_view left, std::string_view right) {
    const auto id_of = [&](std::string_view token) {
      const auto found = id_of_.find(std::string(token));
      if (found == id_of_.end() || !out_.in_model[found->second])
        merges.fail("merge {} ('{}' '{}'): '{}' is not in the vocabulary", i, left, right, token);
      return found->second;
    };
    out_.merges.emplace_back(id_of(left), id_of(right));
  }

  void expect_no_holes() const {
    for (size_t id = 0; id < out_.tokens.size(); ++id)
      if (!known_[id]) root_.fail("no token has the id {}, though ids go up to {}", id, out_.tokens.size() - 1);
  }

  BpeDefinition& definition() { return out_; }

 private:
  void set_token(const JsonAt& where, int32_t id, const std::string& token) {
    if (static_cast<size_t>(id) >= out_.tokens.size()) {
      out_.tokens.resize(id + 1);
      out_.in_model.resize(id + 1);
      known_.resize(id + 1);
    }
    if (known_[id]) where.fail("'{}' and '{}' both have the id {}", out_.tokens[id], token, id);
    const auto [previous, is_new] = id_of_.emplace(token, id);
    if (!is_new) where.fail("'{}' has two ids, {} and {}", token, previous->second, id);
    out_.tokens[id] = token;
    known_[id] = true;
  }

  void read_added() {
    if (!root_.has("added_tokens")) return;
    const JsonAt list = root_.at("added_tokens");
    std::vector<bool> seen;
    for (size_t i = 0; i < list.size(); ++i) {
      const JsonAt token = list.at(i);
      AddedToken added{.id = token.at("id").id(),
                       .content = token.at("content").text(),
                       .special = token.flag("special", false),
                       .normalized = token.flag("normalized", false),
                       .lstrip = token.flag("lstrip", false),
                       .rstrip = token.flag("rstrip", false)};
      if (added.content.empty()) token.at("content").fail("is empty");
      token.expect_unset("single_word");
      const auto in_vocabulary = id_of_.find(added.content);
      if (in_vocabulary == id_of_.end() || in_vocabulary->second != added.id) set_token(token, added.id, added.content);
      seen.resize(out_.tokens.size());
      if (seen[added.id]) token.fail("the id {} is given twice", added.id);
      seen[added.id] = true;
      out_.added.push_back(std::move(added));
    }
  }

  void read_model_settings(const JsonAt& model) {
    for (const char* key : {"dropout", "continuing_subword_prefix", "end_of_word_suffix"}) model.expect_unset(key);
    out_.fuse_unknown = model.flag("fuse_unk", false);
    out_.byte_fallback = model.flag("byte_fallback", false);
    out_.ignore_merges = model.flag("ignore_merges", false);
    if (model.has("unk_token")) out_.unknown = id_of(model.at("unk_token"));
  }

  int32_t id_of(const JsonAt& token) const {
    const auto found = id_of_.find(token.text());
    if (found == id_of_.end()) token.fail("'{}' is not in the vocabulary", token.text());
    return found->second;
  }

  // After ByteLevel the text is spelled in its alphabet, which no pattern is written for.
  void check_byte_level_is_last() const {
    for (size_t i = 0; i + 1 < out_.pre_tokenizer.size(); ++i)
      if (out_.pre_tokenizer[i].byte_level) root_.at("pre_tokenizer").fail("ByteLevel has to be the last step");
  }

  void read_post_processor(const JsonAt& step) {
    const std::string type = step.type();
    if (type == "ByteLevel") return;  // changes offsets only
    if (!out_.text_template.empty()) step.fail("a second template, which is not supported");
    if (type == "RobertaProcessing" || type == "BertProcessing") {
      out_.text_template.before.push_back(template_id(step.at("cls").at(size_t{1})));
      out_.text_template.after.push_back(template_id(step.at("sep").at(size_t{1})));
      return;
    }
    if (type != "TemplateProcessing")
      unsupported(step, "ByteLevel, TemplateProcessing, RobertaProcessing, BertProcessing or a Sequence of them");
    const JsonAt single = step.at("single");
    bool behind = false;
    for (size_t i = 0; i < single.size(); ++i) {
      const JsonAt item = single.at(i);
      if (item.has("Sequence")) {
        if (behind) item.fail("the text stands in the template twice");
        behind = true;
        continue;
      }
      const std::string name = item.at("SpecialToken").at("id").text();
      const JsonAt ids = step.at("special_tokens").at(name.c_str()).at("ids");
      for (size_t k = 0; k < ids.size(); ++k)
        (behind ? out_.text_template.after : out_.text_template.before).push_back(template_id(ids.at(k)));
    }
    if (!behind) single.fail("the text (Sequence A) is missing");
  }

  int32_t template_id(const JsonAt& value) const {
    const int32_t id = value.id();
    if (static_cast<size_t>(id) >= out_.tokens.size()) value.fail("{} is no token's id", id);
    return id;
  }

  JsonAt root_;
  BpeDefinition out_;
  std::vector<bool> known_;
  std::unordered_map<std::string, int32_t> id_of_;
};

constexpr std::string_view special_names[] = {"<|endoftext|>", "<s>", "</s>", "<pad>", "<unk>", "<mask>"};

// Lines of merges.txt without the head line and the last, empty one.
std::vector<std::string_view> merge_lines(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (!line.empty() && !(lines.empty() && line.starts_with("#version"))) lines.push_back(line);
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return lines;
}

}  // namespace

BpeDefinition read_tokenizer_json(std::string_view text, const std::string& source) {
  const nlohmann::json json = parse_json(text, source);
  return TokenizerJsonReader(JsonAt(json, source)).read();
}

BpeDefinition read_vocab_and_merges(const NamedText& vocab, const NamedText& merges) {
  const nlohmann::json json = parse_json(vocab.text, vocab.source);
  TokenizerJsonReader reader(JsonAt(json, vocab.source));
  reader.read_vocabulary(JsonAt(json, vocab.source));
  reader.expect_no_holes();
  nlohmann::json lines = nlohmann::json::array();
  for (const std::string_view line : merge_lines(merges.text)) lines.emplace_back(std::string(line));
  reader.read_merges(JsonAt(lines, merges.source));

  BpeDefinition definition = std::move(reader.definition());
  definition.pre_tokenizer.push_back({.split = SplitRule::gpt2, .byte_level = true});
  for (size_t id = 0; id < definition.tokens.size(); ++id)
    if (std::ranges::find(special_names, definition.tokens[id]) != std::end(special_names))
      definition.added.push_back({.id = static_cast<int32_t>(id), .content = definition.tokens[id]});
  find_roles(definition);
  return definition;
}

void read_tokenizer_config(std::string_view text, const std::string& source, BpeDefinition& definition) {
  const nlohmann::json json = parse_json(text, source);
  const JsonAt root(json, source);
  for (const SpecialRole& role : special_roles()) {
    if (!root.has(role.key)) continue;
    JsonAt name = root.at(role.key);
    if (name.value().is_object()) name = name.at("content");
    const auto found = std::ranges::find(definition.tokens, name.text());
    if (found != definition.tokens.end())
      definition.special.*role.id = static_cast<int32_t>(found - definition.tokens.begin());
    else if (role.id == &SpecialTokens::bos || role.id == &SpecialTokens::eos)  // others are named, but never added
      name.fail("'{}' is no token of the tokenizer beside this file", name.text());
  }
  if (root.flag("add_bos_token", false) && definition.special.bos && definition.text_template.empty())
    definition.text_template.before.push_back(*definition.special.bos);
}

}  // namespace mixtape
