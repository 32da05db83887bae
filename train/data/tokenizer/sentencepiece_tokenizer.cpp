#include "train/data/tokenizer/sentencepiece_tokenizer.h"

#include <sentencepiece_processor.h>
#include <xxhash.h>

#include "core/base/error.h"
#include "train/data/output_file.h"
#include "train/data/tokenizer/normalizer.h"

namespace mixtape {
namespace {

constexpr std::string_view blank_mark = "\u2581";  // ▁

std::optional<int32_t> id_or_none(int id) { return id < 0 ? std::nullopt : std::optional<int32_t>(id); }

std::string with_blanks(const std::string& piece) {
  return normalize({{NormalizerStep::Kind::replace, std::string(blank_mark), " "}}, piece);
}

}  // namespace

SentencePieceTokenizer::SentencePieceTokenizer(std::string_view model, const std::string& source)
    : processor_(std::make_unique<sentencepiece::SentencePieceProcessor>()),
      model_(model),
      fingerprint_(XXH3_64bits(model.data(), model.size())) {
  const auto status = processor_->LoadFromSerializedProto(model_);
  if (!status.ok()) throw DataError("{}: not a usable SentencePiece model: {}", source, status.ToString());
  size_ = processor_->GetPieceSize();
  if (size_ == 0) throw DataError("{}: a SentencePiece model without pieces", source);
  drops_leading_space_ = strips_first_blank();
  special_ = {.bos = id_or_none(processor_->bos_id()),
              .eos = id_or_none(processor_->eos_id()),
              .unk = id_or_none(processor_->unk_id()),
              .pad = id_or_none(processor_->pad_id())};
  find_special_tokens(special_, [&](std::string_view name) { return token_id(name); });
}

SentencePieceTokenizer::~SentencePieceTokenizer() = default;

// The setting itself is inside the library; what it does to a word shows it.
bool SentencePieceTokenizer::strips_first_blank() const {
  for (int32_t id = 0; id < size_; ++id) {
    const std::string piece = token_text(id);
    if (is_special(id) || !piece.starts_with(blank_mark) || piece.size() == blank_mark.size()) continue;
    return decode(std::vector<int32_t>{id}).size() < with_blanks(piece).size();
  }
  return false;
}

void SentencePieceTokenizer::encode(std::string_view text, std::vector<int32_t>& ids, EncodeOptions options) const {
  std::vector<int> found;
  const auto status = processor_->Encode(text, &found);
  if (!status.ok()) throw DataError("SentencePiece cannot encode {} bytes of text: {}", text.size(), status.ToString());
  if (options.add_special && processor_->bos_id() >= 0) ids.push_back(processor_->bos_id());
  ids.insert(ids.end(), found.begin(), found.end());
}

std::string SentencePieceTokenizer::decode(std::span<const int32_t> ids, bool skip_special) const {
  std::vector<int> kept;
  kept.reserve(ids.size());
  for (const int32_t id : ids)
    if (!(is_special(id) && skip_special)) kept.push_back(id);
  std::string text;
  const auto status = processor_->Decode(kept, &text);
  if (!status.ok()) throw DataError("SentencePiece cannot decode {} ids: {}", ids.size(), status.ToString());
  return text;
}

void SentencePieceTokenizer::check_id(int32_t id) const {
  if (id < 0 || id >= size_)
    throw DataError("token id {} is outside the vocabulary of {} tokens; the ids belong to another tokenizer", id,
                    size_);
}

bool SentencePieceTokenizer::is_special(int32_t id) const {
  check_id(id);
  return processor_->IsControl(id) || processor_->IsUnknown(id);
}

std::string SentencePieceTokenizer::token_text(int32_t id) const {
  check_id(id);
  return processor_->IdToPiece(id);
}

std::optional<int32_t> SentencePieceTokenizer::token_id(std::string_view text) const {
  const int32_t id = processor_->PieceToId(text);
  return processor_->IdToPiece(id) == text ? std::optional(id) : std::nullopt;
}

std::string SentencePieceTokenizer::token_bytes(int32_t id) const {
  const std::string piece = token_text(id);
  if (processor_->IsByte(id)) return std::string(1, static_cast<char>(std::stoi(piece.substr(3, 2), nullptr, 16)));
  if (processor_->IsControl(id)) return {};
  if (processor_->IsUnknown(id)) return decode(std::vector<int32_t>{id});
  return with_blanks(piece);
}

std::string SentencePieceTokenizer::description() const { return fmt::format("SentencePiece, {} tokens", size_); }

std::filesystem::path SentencePieceTokenizer::save(const std::filesystem::path& path) const {
  const std::filesystem::path file = path.extension() == ".model" ? path : path / "tokenizer.model";
  if (file.has_parent_path()) std::filesystem::create_directories(file.parent_path());
  write_file(file, model_);
  return file;
}

}  // namespace mixtape
