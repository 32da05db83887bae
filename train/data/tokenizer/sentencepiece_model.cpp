#include "train/data/tokenizer/sentencepiece_model.h"

#include <cmath>
#include <cstring>

#include "core/base/error.h"
#include "core/base/utf8.h"
#include "train/data/tokenizer/character_map.h"

namespace mixtape {
namespace {

// The fields of a protocol buffer message, one after another.
class Message {
 public:
  Message(std::string_view bytes, const std::string& source) : rest_(bytes), source_(source) {}

  // The next field; false at the end.
  bool next() {
    if (rest_.empty()) return false;
    const uint64_t key = varint();
    field_ = key >> 3;
    number_ = 0;
    bytes_ = {};
    switch (key & 7) {
      case 0:
        number_ = varint();
        break;
      case 1:
        bytes_ = take(8);
        break;
      case 2:
        bytes_ = take(varint());
        break;
      case 5:
        bytes_ = take(4);
        break;
      default:
        fail();
    }
    return true;
  }

  uint64_t field() const { return field_; }
  uint64_t number() const { return number_; }
  std::string_view bytes() const { return bytes_; }
  float real() const {
    if (bytes_.size() != sizeof(float)) fail();
    float value;
    std::memcpy(&value, bytes_.data(), sizeof value);
    return value;
  }
  Message message() const { return {bytes_, source_}; }

 private:
  [[noreturn]] void fail() const {
    throw DataError("{}: not a SentencePiece model: damaged field {}", source_, field_);
  }

  std::string_view take(uint64_t size) {
    if (size > rest_.size()) fail();
    const std::string_view taken = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return taken;
  }

  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<uint8_t>(take(1)[0]);
      value |= static_cast<uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return value;
    }
    fail();
  }

  std::string_view rest_;
  const std::string& source_;
  uint64_t field_ = 0, number_ = 0;
  std::string_view bytes_;
};

SentencePieceModel::Piece read_piece(Message message, const std::string& source) {
  SentencePieceModel::Piece piece;
  while (message.next()) {
    if (message.field() == 1) piece.text = message.bytes();
    if (message.field() == 2) piece.score = message.real();
    if (message.field() == 3) piece.kind = static_cast<SentencePieceModel::Kind>(message.number());
  }
  if (piece.text.empty() || !is_utf8(piece.text)) throw DataError("{}: a piece that is empty or not UTF-8", source);
  if (!std::isfinite(piece.score)) throw DataError("{}: the score of '{}' is not a number", source, piece.text);
  return piece;
}

}  // namespace

// The numbers of fields are those of sentencepiece_model.proto.
SentencePieceModel read_sentencepiece_model(std::string_view bytes, const std::string& source) {
  SentencePieceModel model;
  Message message(bytes, source);
  while (message.next()) {
    if (message.field() == 1) model.pieces.push_back(read_piece(message.message(), source));
    if (message.field() == 2) {
      Message trainer = message.message();
      while (trainer.next()) {
        if (trainer.field() == 3) model.algorithm = static_cast<SentencePieceModel::Algorithm>(trainer.number());
        if (trainer.field() == 35) model.byte_fallback = trainer.number() != 0;
      }
    }
    if (message.field() == 3) {
      Message normalizer = message.message();
      while (normalizer.next())
        if (normalizer.field() == 2) model.character_map = normalizer.bytes();
    }
  }
  if (model.pieces.empty()) throw DataError("{}: a SentencePiece model without pieces", source);
  return model;
}

TokenizerDefinition t5_definition(const SentencePieceModel& model, int32_t sentinels, const std::string& source) {
  using Kind = SentencePieceModel::Kind;
  if (model.algorithm != SentencePieceModel::Algorithm::unigram)
    throw DataError("{}: not a unigram model, which is what T5's layout needs", source);
  TokenizerDefinition out;
  UnigramRules rules{.byte_fallback = model.byte_fallback};
  std::optional<int32_t> eos;
  const auto add = [&](const std::string& token, double score, bool special) {
    const auto id = static_cast<int32_t>(out.tokens.size());
    if (special) out.added.push_back({.id = id, .content = token});
    if (token == "</s>") eos = id;
    out.tokens.push_back(token);
    rules.scores.push_back(score);
  };
  for (const auto& piece : model.pieces) {
    if (piece.kind == Kind::unknown) rules.unknown = static_cast<int32_t>(out.tokens.size());
    add(piece.text, piece.score, piece.kind == Kind::unknown || piece.kind == Kind::control);
  }
  for (int32_t i = sentinels; i-- > 0;) add(sentinel_name(static_cast<size_t>(i)), 0, true);
  out.in_model.assign(out.tokens.size(), true);
  out.model = std::move(rules);
  if (!model.character_map.empty())
    out.normalizer = {Precompiled{std::make_shared<CharacterMap>(model.character_map, source)}};
  out.pre_tokenizer = {SplitRule::words, Metaspace{}};
  out.decoder = MetaspaceDecoder{};
  if (eos) out.text_template = TextTemplate::t5(*eos);
  find_roles(out);
  return out;
}

}  // namespace mixtape
