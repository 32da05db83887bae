#include "train/data/tokenizer/bpe_tokenizer.h"

#include <xxhash.h>

#include <algorithm>
#include <atomic>
#include <cstring>

#include "core/base/error.h"
#include "core/base/utf8.h"
#include "train/data/output_file.h"
#include "train/data/tokenizer/byte_level.h"
#include "train/data/tokenizer/normalizer.h"
#include "train/data/tokenizer/tokenizer_json.h"

namespace mixtape {
namespace {

// Pieces of up to 23 bytes and 9 ids: nearly all of a text, and one cache line each.
struct CachedPiece {
  uint64_t key[3] = {};  // the bytes, padded with zeros; the last byte is their number, so all zeros is no piece
  int32_t ids[9];
  int32_t count;
};
static_assert(sizeof(CachedPiece) == 64);
constexpr size_t longest_cached = 23;
constexpr int cache_bits = 15;

// The first n <= 8 bytes at `p` as a number, without reading beyond them.
uint64_t load_up_to_8(const char* p, size_t n) {
  if (n >= 8) {
    uint64_t all;
    std::memcpy(&all, p, 8);
    return all;
  }
  if (n >= 4) {
    uint32_t head, tail;
    std::memcpy(&head, p, 4);
    std::memcpy(&tail, p + n - 4, 4);
    return head | static_cast<uint64_t>(tail) << (n - 4) * 8;
  }
  uint64_t out = 0;
  for (size_t i = 0; i < n; ++i) out |= static_cast<uint64_t>(static_cast<uint8_t>(p[i])) << i * 8;
  return out;
}

struct PieceKey {
  uint64_t words[3];
  explicit PieceKey(std::string_view piece) : words{load_up_to_8(piece.data(), piece.size()), 0, 0} {
    const size_t n = piece.size();
    if (n > 8) words[1] = load_up_to_8(piece.data() + 8, n - 8);
    if (n > 16) words[2] = load_up_to_8(piece.data() + 16, n - 16);
    words[2] |= static_cast<uint64_t>(n) << 56;
  }
  size_t slot() const {
    uint64_t h = words[0] * 0x9E3779B97F4A7C15u ^ words[1] * 0xC2B2AE3D27D4EB4Fu ^ words[2] * 0x165667B19E3779F9u;
    h = (h ^ h >> 32) * 0x9E3779B97F4A7C15u;
    return h >> (64 - cache_bits);
  }
  bool operator==(const CachedPiece& entry) const { return std::memcmp(words, entry.key, sizeof words) == 0; }
};

// "<0x0A>" -> 10
std::optional<uint8_t> byte_of_spelling(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return std::nullopt;
  int value = 0;
  for (const char c : token.substr(3, 2)) {
    const int digit = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                             : -1;
    if (digit < 0) return std::nullopt;
    value = value * 16 + digit;
  }
  return static_cast<uint8_t>(value);
}

std::vector<AddedToken> added_with(const BpeDefinition& definition, bool normalized) {
  std::vector<AddedToken> out;
  for (const AddedToken& token : definition.added) {
    if (token.normalized != normalized) continue;
    out.push_back(token);
    if (normalized) out.back().content = normalize(definition.normalizer, token.content);
  }
  return out;
}

}  // namespace

// What a thread keeps between calls; its cache belongs to the tokenizer that it used last.
struct BpeTokenizer::Scratch {
  uint64_t owner = 0;
  std::vector<CachedPiece> cache;
  std::vector<int32_t> symbols;

  static Scratch& of(uint64_t instance) {
    static thread_local Scratch scratch;
    if (scratch.owner != instance) {
      scratch.cache.assign(size_t{1} << cache_bits, CachedPiece{});
      scratch.owner = instance;
    }
    return scratch;
  }
};

BpeTokenizer::BpeTokenizer(BpeDefinition definition, const std::string& source)
    : definition_(std::move(definition)),
      merges_({}, {}),
      added_raw_(added_with(definition_, false)),
      added_normalized_(added_with(definition_, true)) {
  static std::atomic<uint64_t> instances{0};
  instance_ = ++instances;
  for (int32_t id = 0; id < vocab_size(); ++id)
    if (definition_.in_model[id]) id_of_token_.emplace(definition_.tokens[id], id);
  special_.resize(definition_.tokens.size());
  for (const AddedToken& token : definition_.added) special_[token.id] = token.special;
  for (const PreTokenizerStep& step : definition_.pre_tokenizer)
    splitters_.push_back(step.split ? std::optional(Splitter(*step.split)) : std::nullopt);
  index_symbols(source);
  merges_ = BpeMerges(definition_.merges, merge_results(source));
  find_word_boundaries();
  const std::string json = write_tokenizer_json(definition_);
  fingerprint_ = XXH3_64bits(json.data(), json.size());
}

// Tables from characters to the ids that merging begins with, and from ids to the bytes they stand for.
void BpeTokenizer::index_symbols(const std::string& source) {
  id_of_byte_.fill(-1);
  bytes_.resize(definition_.tokens.size());
  is_byte_.resize(definition_.tokens.size());
  const bool byte_level = definition_.byte_level();
  std::vector<std::string> spelling = definition_.tokens;
  for (const AddedToken& token : definition_.added)  // as Hugging Face decodes them: LLaMA's "</s>" to " </s>"
    if (token.normalized) spelling[token.id] = normalize(definition_.normalizer, token.content);
  for (int32_t id = 0; id < vocab_size(); ++id) {
    const std::string& token = spelling[id];
    const std::optional<std::string> bytes = from_byte_level(token);
    const std::optional<uint8_t> byte = byte_of_spelling(token);
    if (definition_.decoder.byte_level) {
      bytes_[id] = bytes.value_or(token);
    } else {
      is_byte_[id] = definition_.decoder.byte_fallback && byte;
      std::vector<NormalizerStep> steps;
      for (const auto& [from, to] : definition_.decoder.replace)
        steps.push_back({NormalizerStep::Kind::replace, from, to});
      bytes_[id] = is_byte_[id] ? std::string(1, static_cast<char>(*byte)) : normalize(steps, token);
    }
    if (!definition_.in_model[id] || token.empty()) continue;
    if (byte_level) {
      if (bytes && bytes->size() == 1) id_of_byte_[static_cast<uint8_t>((*bytes)[0])] = id;
    } else {
      if (byte) id_of_byte_[*byte] = id;
      if (const Utf8Char c = utf8_char(token, 0); c.length == token.size()) id_of_character_.emplace(c.code, id);
    }
  }
  for (int byte = 0; byte < 256 && byte_level; ++byte)
    if (id_of_byte_[byte] < 0)
      throw DataError("{}: model.vocab: no token for the byte 0x{:02X} ('{}'); a byte-level vocabulary needs all 256",
                      source, byte, to_byte_level(std::string(1, static_cast<char>(byte))));
}

std::vector<int32_t> BpeTokenizer::merge_results(const std::string& source) const {
  std::vector<int32_t> results;
  results.reserve(definition_.merges.size());
  for (const auto& [left, right] : definition_.merges) {
    const std::string& a = definition_.tokens[left];
    const std::string& b = definition_.tokens[right];
    const auto joined = id_of_token_.find(a + b);
    if (joined == id_of_token_.end())
      throw DataError("{}: model.merges[{}]: '{}' and '{}' make '{}', which is not in model.vocab", source,
                      results.size(), a, b, a + b);
    results.push_back(joined->second);
  }
  return results;
}

// LLaMA's layout has no pre-tokenizer: a whole text is one piece. Where no merge makes a token with the mark (▁) behind
// another character, nothing is ever merged across the front of a mark, so cutting there changes no id.
void BpeTokenizer::find_word_boundaries() {
  if (definition_.byte_level() || !definition_.pre_tokenizer.empty() || definition_.ignore_merges) return;
  std::string mark;
  for (const NormalizerStep& step : definition_.normalizer)
    if (step.kind == NormalizerStep::Kind::replace && step.pattern == " ") mark = step.content;
  if (mark.empty() || utf8_char(mark, 0).length != mark.size() || !id_of_token_.contains(mark)) return;
  for (const auto& [left, right] : definition_.merges) {
    const std::string token = definition_.tokens[left] + definition_.tokens[right];
    for (size_t at = token.find(mark); at != std::string::npos; at = token.find(mark, at + mark.size()))
      if (at > 0 && !std::string_view(token).substr(0, at).ends_with(mark)) return;
  }
  word_mark_ = mark;
}

void BpeTokenizer::encode(std::string_view text, std::vector<int32_t>& ids, EncodeOptions options) const {
  Scratch& scratch = Scratch::of(instance_);
  const auto add = [&](const std::vector<int32_t>& extra) { ids.insert(ids.end(), extra.begin(), extra.end()); };
  if (options.add_special) add(definition_.text_template.before);
  added_raw_.split(
      text, options.parse_special,
      [&](std::string_view part) { encode_text(part, options.parse_special, ids, scratch); },
      [&](int32_t id) { ids.push_back(id); });
  if (options.add_special) add(definition_.text_template.after);
}

void BpeTokenizer::encode_text(std::string_view text, bool parse_special, std::vector<int32_t>& ids,
                               Scratch& scratch) const {
  std::string normalized;
  if (!definition_.normalizer.empty()) text = normalized = normalize(definition_.normalizer, text);
  added_normalized_.split(
      text, parse_special, [&](std::string_view part) { pre_tokenize(part, 0, ids, scratch); },
      [&](int32_t id) { ids.push_back(id); });
}

void BpeTokenizer::pre_tokenize(std::string_view piece, size_t step, std::vector<int32_t>& ids,
                                Scratch& scratch) const {
  std::string prefixed;
  for (; step < splitters_.size(); ++step) {
    if (definition_.pre_tokenizer[step].add_prefix_space && piece[0] != ' ') {
      prefixed.assign(1, ' ').append(piece);
      piece = prefixed;
    }
    if (!splitters_[step]) continue;  // ByteLevel that only spells bytes
    const bool last = step + 1 == splitters_.size();
    for (size_t begin = 0, end; begin < piece.size(); begin = end) {
      end = splitters_[step]->piece_end(piece, begin);
      const std::string_view part = piece.substr(begin, end - begin);
      last ? encode_piece(part, ids, scratch) : pre_tokenize(part, step + 1, ids, scratch);
    }
    return;
  }
  if (word_mark_.empty()) return encode_piece(piece, ids, scratch);
  for (size_t begin = 0, end; begin < piece.size(); begin = end) {
    end = begin;
    while (piece.substr(end).starts_with(word_mark_)) end += word_mark_.size();
    end = std::min(piece.find(word_mark_, end), piece.size());
    encode_piece(piece.substr(begin, end - begin), ids, scratch);
  }
}

void BpeTokenizer::encode_piece(std::string_view piece, std::vector<int32_t>& ids, Scratch& scratch) const {
  if (piece.size() > longest_cached) {
    merge_piece(piece, scratch.symbols, scratch);
    ids.insert(ids.end(), scratch.symbols.begin(), scratch.symbols.end());
    return;
  }
  const PieceKey key(piece);
  CachedPiece& cached = scratch.cache[key.slot()];
  if (key == cached) {
    ids.insert(ids.end(), cached.ids, cached.ids + cached.count);
    return;
  }
  merge_piece(piece, scratch.symbols, scratch);
  ids.insert(ids.end(), scratch.symbols.begin(), scratch.symbols.end());
  if (scratch.symbols.size() > std::size(cached.ids)) return;
  std::memcpy(cached.key, key.words, sizeof cached.key);
  cached.count = static_cast<int32_t>(scratch.symbols.size());
  std::ranges::copy(scratch.symbols, cached.ids);
}

void BpeTokenizer::merge_piece(std::string_view piece, std::vector<int32_t>& symbols, Scratch&) const {
  symbols.clear();
  if (definition_.ignore_merges) {
    const auto whole = id_of_token_.find(definition_.byte_level() ? to_byte_level(piece) : std::string(piece));
    if (whole != id_of_token_.end()) {
      symbols.push_back(whole->second);
      return;
    }
  }
  first_symbols(piece, symbols);
  merges_.apply(symbols);
}

void BpeTokenizer::first_symbols(std::string_view piece, std::vector<int32_t>& symbols) const {
  if (definition_.byte_level()) {
    for (const char c : piece) symbols.push_back(id_of_byte_[static_cast<uint8_t>(c)]);
    return;
  }
  bool after_unknown = false;
  for (size_t at = 0; at < piece.size();) {
    const Utf8Char c = utf8_char(piece, at);
    const std::string_view bytes = c.valid ? piece.substr(at, c.length) : replacement_text;
    at += c.length;
    const auto known = id_of_character_.find(c.code);
    const bool unknown = known == id_of_character_.end();
    const bool as_bytes = unknown && definition_.byte_fallback &&
                          std::ranges::all_of(bytes, [&](char b) { return id_of_byte_[static_cast<uint8_t>(b)] >= 0; });
    if (!unknown) {
      symbols.push_back(known->second);
    } else if (as_bytes) {
      for (const char b : bytes) symbols.push_back(id_of_byte_[static_cast<uint8_t>(b)]);
    } else if (definition_.unknown && !(after_unknown && definition_.fuse_unknown)) {
      symbols.push_back(*definition_.unknown);
    }
    after_unknown = unknown && !as_bytes;
  }
}

std::string BpeTokenizer::decode(std::span<const int32_t> ids, bool skip_special) const {
  if (!definition_.decoder.byte_level) return decode_with_fallback(ids, skip_special);
  std::string bytes;
  for (const int32_t id : ids) {
    check_id(id);
    if (!(skip_special && special_[id])) bytes += bytes_[id];
  }
  return to_valid_utf8(bytes);
}

// As Hugging Face's ByteFallback: a run of byte tokens is either UTF-8 as a whole, or one U+FFFD for each byte.
std::string BpeTokenizer::decode_with_fallback(std::span<const int32_t> ids, bool skip_special) const {
  std::string text, run;
  const auto end_run = [&] {
    if (is_utf8(run))
      text += run;
    else
      for (size_t i = 0; i < run.size(); ++i) text += replacement_text;
    run.clear();
  };
  for (const int32_t id : ids) {
    check_id(id);
    if (skip_special && special_[id]) continue;
    if (is_byte_[id]) {
      run += bytes_[id];
    } else {
      end_run();
      text += bytes_[id];
    }
  }
  end_run();
  if (definition_.decoder.strip_space && text.starts_with(' ')) text.erase(0, 1);
  return text;
}

void BpeTokenizer::check_id(int32_t id) const {
  if (id < 0 || id >= vocab_size())
    throw DataError("token id {} is outside the vocabulary of {} tokens; the ids belong to another tokenizer", id,
                    vocab_size());
}

bool BpeTokenizer::is_special(int32_t id) const {
  check_id(id);
  return special_[id];
}

std::string BpeTokenizer::token_text(int32_t id) const {
  check_id(id);
  return definition_.tokens[id];
}

std::optional<int32_t> BpeTokenizer::token_id(std::string_view text) const {
  for (const AddedToken& token : definition_.added)
    if (token.content == text) return token.id;
  const auto found = id_of_token_.find(std::string(text));
  return found == id_of_token_.end() ? std::nullopt : std::optional(found->second);
}

std::string BpeTokenizer::token_bytes(int32_t id) const {
  check_id(id);
  return bytes_[id];
}

bool BpeTokenizer::drops_leading_space() const {
  return !definition_.decoder.byte_level && definition_.decoder.strip_space;
}

std::string BpeTokenizer::description() const {
  const bool byte_level = definition_.byte_level();
  if (byte_level && definition_.merges.empty()) return fmt::format("bytes, {} tokens", vocab_size());
  return fmt::format("{}, {} tokens, {} merges", byte_level ? "byte-level BPE" : "BPE", vocab_size(),
                     definition_.merges.size());
}

std::filesystem::path BpeTokenizer::save(const std::filesystem::path& path) const {
  const bool to_file = path.extension() == ".json";
  const std::filesystem::path file = to_file ? path : path / "tokenizer.json";
  if (file.has_parent_path()) std::filesystem::create_directories(file.parent_path());
  write_file(file, write_tokenizer_json(definition_));
  if (!to_file) write_file(path / "tokenizer_config.json", write_tokenizer_config(definition_));
  return file;
}

}  // namespace mixtape
