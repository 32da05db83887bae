#include "train/data/tokenizer/pipeline_tokenizer.h"

#include <xxhash.h>

#include <algorithm>
#include <atomic>

#include "core/base/error.h"
#include "core/base/utf8.h"
#include "train/data/output_file.h"
#include "train/data/tokenizer/byte_level.h"
#include "train/data/tokenizer/decoding.h"
#include "train/data/tokenizer/tokenizer_json.h"
#include "train/data/tokenizer/vocabulary_files.h"

namespace mixtape {
namespace {

std::vector<AddedToken> added_with(const TokenizerDefinition& definition, bool normalized) {
  std::vector<AddedToken> out;
  for (const AddedToken& token : definition.added) {
    if (token.normalized != normalized) continue;
    out.push_back(token);
    if (normalized) out.back().content = normalize(definition.normalizer, token.content);
  }
  return out;
}

std::unique_ptr<TokenModel> make_model(const TokenizerDefinition& definition, const std::string& source) {
  if (std::holds_alternative<BpeRules>(definition.model)) return make_bpe_model(definition, source);
  if (std::holds_alternative<WordPieceRules>(definition.model)) return make_wordpiece_model(definition);
  return make_unigram_model(definition);
}

// Calls f for each part of `text` that begins with `mark`: of a run of marks one by one, or `together`.
template <class F>
void split_at_marks(std::string_view text, std::string_view mark, bool together, F&& f) {
  for (size_t begin = 0, end; begin < text.size(); begin = end) {
    end = begin;
    while (text.substr(end).starts_with(mark) && (together || end == begin)) end += mark.size();
    end = std::min(text.find(mark, end), text.size());
    f(text.substr(begin, end - begin), begin == 0);
  }
}

std::string with_marks(const Metaspace& metaspace, std::string_view piece, bool at_start) {
  std::string out = replace_all(piece, " ", metaspace.mark);
  const bool prepend =
      metaspace.prepend == Metaspace::Prepend::always || (metaspace.prepend == Metaspace::Prepend::first && at_start);
  if (prepend && !out.starts_with(metaspace.mark)) out.insert(0, metaspace.mark);
  return out;
}

}  // namespace

PipelineTokenizer::PipelineTokenizer(TokenizerDefinition definition, const std::string& source)
    : definition_(std::move(definition)),
      special_(special_flags(definition_)),
      model_(make_model(definition_, source)),
      added_raw_(added_with(definition_, false)),
      added_normalized_(added_with(definition_, true)) {
  static std::atomic<uint64_t> instances{0};
  instance_ = ++instances;
  for (int32_t id = 0; id < vocab_size(); ++id)
    if (definition_.in_model[id]) id_of_token_.emplace(definition_.tokens[id], id);
  for (const PreTokenizerStep& step : definition_.pre_tokenizer) {
    if (const auto* rule = std::get_if<SplitRule>(&step)) steps_.push_back({.splitter = Splitter(*rule)});
    if (const auto* metaspace = std::get_if<Metaspace>(&step)) steps_.push_back({.metaspace = *metaspace});
    if (const auto* bytes = std::get_if<ByteLevel>(&step)) {
      Step& made = steps_.emplace_back();
      made.add_prefix_space = bytes->add_prefix_space;
      if (bytes->split) made.splitter.emplace(*bytes->split);
    }
  }
  index_tokens();
  find_word_boundaries();
  const std::string json = write_tokenizer_json(definition_);
  fingerprint_ = XXH3_64bits(json.data(), json.size());
}

// What each id adds to a text.
void PipelineTokenizer::index_tokens() {
  bytes_.resize(definition_.tokens.size());
  is_byte_.resize(definition_.tokens.size());
  std::vector<std::string> spelling = definition_.tokens;
  for (const AddedToken& token : definition_.added)  // as Hugging Face decodes them: LLaMA's "</s>" to " </s>"
    if (token.normalized) spelling[token.id] = normalize(definition_.normalizer, token.content);
  for (int32_t id = 0; id < vocab_size(); ++id) {
    const DecodedToken decoded = decode_token(definition_.decoder, spelling[id]);
    bytes_[id] = decoded.bytes;
    is_byte_[id] = decoded.is_fallback_byte;
  }
}

// LLaMA's layout has no split: a whole text is one piece. Where no merge makes a token with the mark (▁) behind another
// character, nothing is ever merged across the front of a mark, so cutting there changes no id.
void PipelineTokenizer::find_word_boundaries() {
  const auto* rules = std::get_if<BpeRules>(&definition_.model);
  if (!rules || rules->ignore_merges || steps_.size() > 1) return;
  std::string mark;
  for (const NormalizerStep& step : definition_.normalizer)
    if (const auto* replace = std::get_if<Replace>(&step); replace && replace->pattern == " ") mark = replace->content;
  if (!steps_.empty()) {
    if (!steps_[0].metaspace || steps_[0].metaspace->split) return;
    mark = steps_[0].metaspace->mark;
  }
  if (mark.empty() || utf8_char(mark, 0).length != mark.size() || !id_of_token_.contains(mark)) return;
  for (const auto& [left, right] : rules->merges) {
    const std::string token = definition_.tokens[left] + definition_.tokens[right];
    for (size_t at = token.find(mark); at != std::string::npos; at = token.find(mark, at + mark.size()))
      if (at > 0 && !std::string_view(token).substr(0, at).ends_with(mark)) return;
  }
  word_mark_ = mark;
}

void PipelineTokenizer::encode(std::string_view text, std::vector<int32_t>& ids, EncodeOptions options) const {
  if (!options.add_special) return encode_body(text, options.parse_special, ids);
  for (const TemplateItem& item : definition_.text_template.single) {
    if (item.kind == TemplateItem::Kind::token)
      ids.push_back(item.id);
    else
      encode_body(text, options.parse_special, ids);
  }
}

EncodedPair PipelineTokenizer::encode_pair(std::string_view first, std::string_view second, bool parse_special) const {
  EncodedPair out;
  for (const TemplateItem& item : definition_.text_template.pair) {
    if (item.kind == TemplateItem::Kind::token)
      out.ids.push_back(item.id);
    else
      encode_body(item.kind == TemplateItem::Kind::first_text ? first : second, parse_special, out.ids);
    out.types.resize(out.ids.size(), item.type);
  }
  return out;
}

void PipelineTokenizer::encode_body(std::string_view text, bool parse_special, std::vector<int32_t>& ids) const {
  // Ids that a thread remembers depend on `parse_special` where a special token is a token of the model as well.
  Target target{ids, PieceCache::of_thread(instance_ * 2 + parse_special), !parse_special};
  added_raw_.split(
      text, parse_special, [&](std::string_view part) { encode_text(part, part.data() == text.data(), target); },
      [&](int32_t id) { ids.push_back(id); });
}

void PipelineTokenizer::encode_text(std::string_view text, bool at_start, Target& target) const {
  std::string changed;
  if (!definition_.byte_level() && !is_utf8(text)) text = changed = to_valid_utf8(text);
  if (!definition_.normalizer.empty()) text = changed = normalize(definition_.normalizer, text);
  added_normalized_.split(
      text, !target.plain,
      [&](std::string_view part) { pre_tokenize(part, at_start && part.data() == text.data(), 0, target); },
      [&](int32_t id) { target.ids.push_back(id); });
}

void PipelineTokenizer::pre_tokenize(std::string_view piece, bool at_start, size_t index, Target& target) const {
  if (index == steps_.size()) return encode_piece(piece, target);
  const Step& step = steps_[index];
  std::string changed;
  if (step.add_prefix_space && piece[0] != ' ') piece = changed.assign(1, ' ').append(piece);
  if (step.metaspace) {
    piece = changed = with_marks(*step.metaspace, piece, at_start);
    if (!step.metaspace->split) return pre_tokenize(piece, at_start, index + 1, target);
    return split_at_marks(piece, step.metaspace->mark, false, [&](std::string_view part, bool is_first) {
      pre_tokenize(part, at_start && is_first, index + 1, target);
    });
  }
  if (!step.splitter) return pre_tokenize(piece, at_start, index + 1, target);  // ByteLevel that only spells bytes
  const bool last = index + 1 == steps_.size();
  for (size_t begin = 0, end; begin < piece.size(); begin = end) {
    end = step.splitter->piece_end(piece, begin);
    if (step.splitter->drops(piece, begin)) continue;
    const std::string_view part = piece.substr(begin, end - begin);
    if (last)
      target.cache.append(part, target.ids,
                          [&](std::string_view p, auto& ids) { model_->encode(p, target.plain, ids); });
    else
      pre_tokenize(part, at_start && begin == 0, index + 1, target);
  }
}

void PipelineTokenizer::encode_piece(std::string_view piece, Target& target) const {
  const auto append = [&](std::string_view part, bool = true) {
    target.cache.append(part, target.ids, [&](std::string_view p, auto& ids) { model_->encode(p, target.plain, ids); });
  };
  if (word_mark_.empty()) return append(piece);
  split_at_marks(piece, word_mark_, true, append);
}

std::string PipelineTokenizer::decode(std::span<const int32_t> ids, bool skip_special) const {
  TextJoiner text(definition_.decoder);
  bool at_start = true;
  for (const int32_t id : ids) {
    check_id(id);
    if (skip_special && special_[id]) continue;
    text.append(at_start ? first_token_bytes(id) : bytes_[id], is_byte_[id]);
    at_start &= bytes_[id].empty();
  }
  return text.finish();
}

void PipelineTokenizer::check_id(int32_t id) const {
  if (id < 0 || id >= vocab_size())
    throw DataError("token id {} is outside the vocabulary of {} tokens; the ids belong to another tokenizer", id,
                    vocab_size());
}

bool PipelineTokenizer::is_special(int32_t id) const {
  check_id(id);
  return special_[id];
}

bool PipelineTokenizer::begins_word(int32_t id) const {
  const auto* rules = std::get_if<WordPieceRules>(&definition_.model);
  if (!rules) return Tokenizer::begins_word(id);
  return is_special(id) || !definition_.tokens[id].starts_with(rules->prefix);
}

std::string PipelineTokenizer::token_text(int32_t id) const {
  check_id(id);
  return definition_.tokens[id];
}

std::optional<int32_t> PipelineTokenizer::token_id(std::string_view text) const {
  for (const AddedToken& token : definition_.added)
    if (token.content == text) return token.id;
  const auto found = id_of_token_.find(text);
  return found == id_of_token_.end() ? std::nullopt : std::optional(found->second);
}

std::string PipelineTokenizer::token_bytes(int32_t id) const {
  check_id(id);
  return bytes_[id];
}

std::string PipelineTokenizer::first_token_bytes(int32_t id) const {
  check_id(id);
  return decode_first_token(definition_.decoder, definition_.tokens[id], bytes_[id]);
}

std::string PipelineTokenizer::description() const {
  const size_t merges =
      std::holds_alternative<BpeRules>(definition_.model) ? std::get<BpeRules>(definition_.model).merges.size() : 0;
  const bool byte_level = definition_.byte_level();
  if (std::holds_alternative<WordPieceRules>(definition_.model))
    return fmt::format("WordPiece, {} tokens", vocab_size());
  if (std::holds_alternative<UnigramRules>(definition_.model)) return fmt::format("unigram, {} tokens", vocab_size());
  if (byte_level && merges == 0) return fmt::format("bytes, {} tokens", vocab_size());
  return fmt::format("{}, {} tokens, {} merges", byte_level ? "byte-level BPE" : "BPE", vocab_size(), merges);
}

// WordPiece gets its vocab.txt beside the tokenizer.json: older programs know no other file.
std::filesystem::path PipelineTokenizer::save(const std::filesystem::path& path) const {
  if (path.extension() == ".txt") return save_vocabulary(path);
  const bool to_file = path.extension() == ".json";
  const std::filesystem::path file = to_file ? path : path / "tokenizer.json";
  if (file.has_parent_path()) std::filesystem::create_directories(file.parent_path());
  write_file(file, write_tokenizer_json(definition_));
  if (to_file) return file;
  if (is_bert_layout(definition_)) write_file(path / "vocab.txt", write_vocab_txt(definition_));
  write_file(path / "tokenizer_config.json", write_tokenizer_config(definition_));
  return file;
}

std::filesystem::path PipelineTokenizer::save_vocabulary(const std::filesystem::path& file) const {
  if (!is_bert_layout(definition_))
    throw DataError(
        "{}: a vocab.txt can only hold a WordPiece tokenizer in BERT's layout, and this is {}; write a .json",
        file.string(), description());
  if (file.has_parent_path()) std::filesystem::create_directories(file.parent_path());
  write_file(file, write_vocab_txt(definition_));
  write_file(file.parent_path() / "tokenizer_config.json", write_tokenizer_config(definition_));
  return file;
}

}  // namespace mixtape
