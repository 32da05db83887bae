// Text to token ids and back.
//
// A tokenizer is immutable once made; every member function is safe to call from many threads at once.
//
//   auto tokenizer = load_tokenizer("data/tokenizer.json");
//   std::vector<int32_t> ids;
//   tokenizer->encode("Hello", ids, {.parse_special = false});
//   std::string text = tokenizer->decode(ids);
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "train/data/tokenizer/special_tokens.h"

namespace mixtape {

constexpr int32_t most_tokens = 1 << 24;  // of a vocabulary

struct EncodeOptions {
  // Literals of special tokens in the text, such as "<|endoftext|>", become their ids, as in Hugging Face. Off for text
  // that nobody has vetted (training data): there they stay ordinary characters.
  bool parse_special = true;
  // Adds what the tokenizer's template puts around a text (LLaMA: <s> in front). Right for a prompt; off for training
  // data, where the packing of documents decides.
  bool add_special = false;
};

// Two texts as one sequence, as classification of pairs needs it.
struct EncodedPair {
  std::vector<int32_t> ids;
  std::vector<int32_t> types;  // BERT's token types: 0 for the first text, 1 for the second, where a template has them
};

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // Appends the ids of `text` to `ids`. `text` may hold any bytes, also such as are not UTF-8: byte-level tokenizers
  // keep them, others replace them by U+FFFD or the unknown token.
  virtual void encode(std::string_view text, std::vector<int32_t>& ids, EncodeOptions options = {}) const = 0;
  std::vector<int32_t> encode(std::string_view text, EncodeOptions options = {}) const;
  // With what the tokenizer's template puts around two texts: [CLS] first [SEP] second [SEP].
  virtual EncodedPair encode_pair(std::string_view first, std::string_view second, bool parse_special = true) const = 0;

  // The text of `ids`, always valid UTF-8: each maximal broken part becomes U+FFFD. With `skip_special`, special tokens
  // leave no trace. Throws DataError for an id outside [0, vocab_size).
  virtual std::string decode(std::span<const int32_t> ids, bool skip_special = false) const = 0;

  // Ids are 0 .. vocab_size - 1, special tokens included.
  virtual int32_t vocab_size() const = 0;

  // Ids with a role: by tokenizer_config.json or special_tokens_map.json, else by the usual names.
  virtual const SpecialTokens& special_tokens() const = 0;
  std::optional<int32_t> eos_id() const { return special_tokens().eos; }
  std::optional<int32_t> bos_id() const { return special_tokens().bos; }
  std::optional<int32_t> pad_id() const { return special_tokens().pad; }
  virtual bool is_special(int32_t id) const = 0;

  // The token as the tokenizer's file spells it ("Ġthe", "▁the", "<0x0A>"), for people to read.
  virtual std::string token_text(int32_t id) const = 0;
  // The id of a token by that spelling, for example of "<mask>".
  virtual std::optional<int32_t> token_id(std::string_view text) const = 0;
  // The bytes that decode() makes of the token in the middle of a text (" the"); their number is what bits per byte
  // counts.
  virtual std::string token_bytes(int32_t id) const = 0;
  // Whether a word begins with this token, for masking of whole words: its text begins with white space (WordPiece: it
  // has no ##), or it is special.
  virtual bool begins_word(int32_t id) const;
  // The same at the start of a text, where decode() may leave a blank out ("the").
  virtual std::string first_token_bytes(int32_t id) const = 0;

  // A hash of everything that decides ids; the same for a tokenizer saved and loaded again. Shards carry it.
  virtual uint64_t fingerprint() const = 0;

  // One line for logs: "byte-level BPE, 8192 tokens, 7935 merges".
  virtual std::string description() const = 0;

  // Writes the tokenizer: into `path` if it ends in .json or .model, else into the directory `path` (made if missing)
  // under its usual name. The file is complete or absent, never half. Returns the file's path.
  virtual std::filesystem::path save(const std::filesystem::path& path) const = 0;
};

// Recognises
//   bytes                              the literal name: ids 0-255 are the bytes, 256 is <|endoftext|>
//   FILE.json                          Hugging Face's tokenizer.json (BPE, WordPiece, unigram)
//   FILE.model                         SentencePiece (tokenizer.model, spiece.model)
//   vocab.txt                          BERT's WordPiece
//   vocab.json or merges.txt           the pair of GPT-2, OPT, RoBERTa and BART, in one directory
//   a directory with any of them       in this order
// special_tokens_map.json and tokenizer_config.json beside the file, where present, name the tokens with a role;
// tokenizer_config.json also says whether a vocab.txt is lower case, and how many sentinels follow a T5 .model.
// Throws DataError that names the file and what is wrong with it.
std::unique_ptr<Tokenizer> load_tokenizer(const std::filesystem::path& path);

// Decodes ids one at a time, as generation makes them: bytes of a character that is not complete yet are held back.
// The strings joined equal decode() of all ids (for broken UTF-8 under byte fallback: up to the number of U+FFFD).
class StreamDecoder {
 public:
  // `after_prompt`: the ids continue a text, so a blank at their start is kept.
  explicit StreamDecoder(const Tokenizer& tokenizer, bool after_prompt = false, bool skip_special = true);

  std::string next(int32_t id);
  // What is still held back, as U+FFFD.
  std::string finish();

 private:
  const Tokenizer& tokenizer_;
  bool at_start_;
  bool skip_special_;
  std::string held_;
};

}  // namespace mixtape
