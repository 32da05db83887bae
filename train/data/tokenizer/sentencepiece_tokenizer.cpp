#include "train/data/tokenizer/sentencepiece_tokenizer.h"

#include <sentencepiece_processor.h>
#include <xxhash.h>

#include "core/base/error.h"
#include "train/data/output_file.h"
#include "train/data/tokenizer/vocabulary_files.h"

namespace mixtape {
namespace {

std::optional<int32_t> id_or_none(int id) { return id < 0 ? std::nullopt : std::optional<int32_t>(id); }

std::string with_blanks(const std::string& piece) { return replace_all(piece, metaspace_mark, " "); }

}  // namespace

SentencePieceTokenizer::SentencePieceTokenizer(std::string_view model, const std::string& source, int32_t sentinels)
    : processor_(std::make_unique<sentencepiece::SentencePieceProcessor>()),
      model_(model),
      fingerprint_(XXH3_64bits(model.data(), model.size())) {
  const auto status = processor_->LoadFromSerializedProto(model_);
  if (!status.ok()) throw DataError("{}: not a usable SentencePiece model: {}", source, status.ToString());
  pieces_ = processor_->GetPieceSize();
  if (pieces_ == 0) throw DataError("{}: a SentencePiece model without pieces", source);
  drops_leading_space_ = strips_first_blank();
  if (!token_id(sentinel_name(0))) sentinels_ = sentinels;
  if (sentinels_ > 0)
    fingerprint_ = XXH3_64bits_withSeed(model.data(), model.size(), static_cast<uint64_t>(sentinels_));
  find_roles();
  std::vector<AddedToken> added;
  for (size_t i = 0; i < special_.sentinels.size(); ++i)
    added.push_back({.id = special_.sentinels[i], .content = sentinel_name(i)});
  matcher_ = AddedTokenMatcher(std::move(added));
}

SentencePieceTokenizer::~SentencePieceTokenizer() = default;

void SentencePieceTokenizer::find_roles() {
  special_ = {.bos = id_or_none(processor_->bos_id()),
              .eos = id_or_none(processor_->eos_id()),
              .unk = id_or_none(processor_->unk_id()),
              .pad = id_or_none(processor_->pad_id())};
  for (int32_t i = 0; i < sentinels_; ++i) special_.sentinels.push_back(vocab_size() - 1 - i);
  find_special_tokens(special_, [&](std::string_view name) { return token_id(name); });
}

// The setting itself is inside the library; what it does to a word shows it.
bool SentencePieceTokenizer::strips_first_blank() const {
  const std::string_view mark = metaspace_mark;
  for (int32_t id = 0; id < pieces_; ++id) {
    const std::string piece = token_text(id);
    if (is_special(id) || !piece.starts_with(mark) || piece.size() == mark.size()) continue;
    return decode_pieces({id}).size() < with_blanks(piece).size();
  }
  return false;
}

void SentencePieceTokenizer::encode_part(std::string_view text, std::vector<int32_t>& ids) const {
  std::vector<int> found;
  const auto status = processor_->Encode(text, &found);
  if (!status.ok()) throw DataError("SentencePiece cannot encode {} bytes of text: {}", text.size(), status.ToString());
  ids.insert(ids.end(), found.begin(), found.end());
}

void SentencePieceTokenizer::encode(std::string_view text, std::vector<int32_t>& ids, EncodeOptions options) const {
  const int bos = processor_->bos_id(), eos = processor_->eos_id();
  if (options.add_special && bos >= 0) ids.push_back(bos);
  matcher_.split(
      text, options.parse_special, [&](std::string_view part) { encode_part(part, ids); },
      [&](int32_t id) { ids.push_back(id); });
  if (options.add_special && bos < 0 && eos >= 0) ids.push_back(eos);
}

EncodedPair SentencePieceTokenizer::encode_pair(std::string_view first, std::string_view second,
                                                bool parse_special) const {
  EncodedPair out;
  for (const std::string_view text : {first, second})
    encode(text, out.ids, {.parse_special = parse_special, .add_special = true});
  out.types.resize(out.ids.size());
  return out;
}

std::string SentencePieceTokenizer::decode_pieces(const std::vector<int>& ids) const {
  std::string text;
  const auto status = processor_->Decode(ids, &text);
  if (!status.ok()) throw DataError("SentencePiece cannot decode {} ids: {}", ids.size(), status.ToString());
  return text;
}

// Sentinels cut the ids into parts that the library decodes; of a part behind another the first blank is kept.
std::string SentencePieceTokenizer::decode(std::span<const int32_t> ids, bool skip_special) const {
  std::string text;
  std::vector<int> part;
  bool at_start = true;
  const auto end_part = [&] {
    if (part.empty()) return;
    if (!at_start && drops_leading_space_ && token_bytes(part[0]).starts_with(' ')) text += ' ';
    text += decode_pieces(part);
    part.clear();
    at_start = false;
  };
  for (const int32_t id : ids) {
    if (is_special(id) && skip_special) continue;
    if (id < pieces_) {
      part.push_back(id);
      continue;
    }
    end_part();
    text += token_text(id);
    at_start = false;
  }
  end_part();
  return text;
}

void SentencePieceTokenizer::check_id(int32_t id) const {
  if (id < 0 || id >= vocab_size())
    throw DataError("token id {} is outside the vocabulary of {} tokens; the ids belong to another tokenizer", id,
                    vocab_size());
}

bool SentencePieceTokenizer::is_special(int32_t id) const {
  check_id(id);
  return id >= pieces_ || processor_->IsControl(id) || processor_->IsUnknown(id);
}

std::string SentencePieceTokenizer::token_text(int32_t id) const {
  check_id(id);
  return id < pieces_ ? processor_->IdToPiece(id) : sentinel_name(vocab_size() - 1 - id);
}

std::optional<int32_t> SentencePieceTokenizer::token_id(std::string_view text) const {
  for (int32_t id = pieces_; id < vocab_size(); ++id)
    if (token_text(id) == text) return id;
  const int32_t id = processor_->PieceToId(text);
  return processor_->IdToPiece(id) == text ? std::optional(id) : std::nullopt;
}

std::string SentencePieceTokenizer::token_bytes(int32_t id) const {
  const std::string piece = token_text(id);
  if (id >= pieces_) return piece;
  if (processor_->IsByte(id)) return std::string(1, static_cast<char>(std::stoi(piece.substr(3, 2), nullptr, 16)));
  if (processor_->IsControl(id)) return {};
  if (processor_->IsUnknown(id)) return decode_pieces({id});
  return with_blanks(piece);
}

std::string SentencePieceTokenizer::first_token_bytes(int32_t id) const {
  const std::string bytes = token_bytes(id);
  return bytes.substr(drops_leading_space_ && bytes.starts_with(' '));
}

std::string SentencePieceTokenizer::description() const {
  if (sentinels_ == 0) return fmt::format("SentencePiece, {} tokens", pieces_);
  return fmt::format("SentencePiece, {} tokens, {} sentinels", vocab_size(), sentinels_);
}

std::filesystem::path SentencePieceTokenizer::save(const std::filesystem::path& path) const {
  const std::filesystem::path file = path.extension() == ".model" ? path : path / "tokenizer.model";
  if (file.has_parent_path()) std::filesystem::create_directories(file.parent_path());
  write_file(file, model_);
  if (sentinels_ > 0) write_file(file.parent_path() / "tokenizer_config.json", write_t5_config(special_));
  return file;
}

}  // namespace mixtape
