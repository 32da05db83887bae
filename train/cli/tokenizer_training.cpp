#include "train/cli/tokenizer_training.h"

#include <filesystem>
#include <functional>
#include <memory>

#include "core/base/clock.h"
#include "core/base/error.h"
#include "train/data/text_reader.h"
#include "train/data/tokenizer/bpe_trainer.h"
#include "train/data/tokenizer/tokenizer.h"
#include "train/data/tokenizer/unigram_trainer.h"
#include "train/data/tokenizer/wordpiece_trainer.h"
#include "train/report/console.h"
#include "train/report/units.h"

namespace mixtape {
namespace {

uint64_t total_size(const std::vector<std::filesystem::path>& files) {
  uint64_t bytes = 0;
  for (const auto& file : files) bytes += std::filesystem::file_size(file);
  return bytes;
}

// The start of the text, kept to measure how well the tokenizer compresses.
constexpr size_t sample_bytes = size_t{4} << 20;

// Feeds all text to the trainer; returns the sample.
std::string read_texts(const TokenizerTraining& options, TokenizerTrainer& trainer) {
  const std::vector<std::filesystem::path> files = expand_paths(options.inputs);
  const uint64_t total = total_size(files);
  TextReader reader(files, {.key = options.key});
  std::string sample;
  uint64_t text_bytes = 0;
  for (TextPiece piece; reader.next(piece);) {
    text_bytes += piece.text.size();
    if (sample.size() < sample_bytes) sample.append(piece.text, 0, sample_bytes - sample.size());
    trainer.add(std::move(piece.text));
    console().bar(fmt::format("reading  {} of {}", human_bytes(double(reader.counters().bytes_read)),
                              human_bytes(double(total))));
  }
  console().bar("", true);
  console().line(fmt::format("read {}, {}, {} of text", counted(int64_t(files.size()), "file"),
                             counted(int64_t(reader.counters().documents), "document"),
                             human_bytes(double(text_bytes))));
  if (reader.counters().repaired)
    console().warn(fmt::format("broken UTF-8 in {} of text reads as U+FFFD",
                               counted(int64_t(reader.counters().repaired), "piece")));
  return sample;
}

[[noreturn]] void refuse(const char* option, const TokenizerTraining& options) {
  throw ConfigError("{} has no meaning for --type {}", option, options.type);
}

std::unique_ptr<TokenizerTrainer> bpe_trainer(const TokenizerTraining& o, std::function<void(int32_t)> progress) {
  if (o.cased) refuse("--cased", o);
  if (o.alphabet) refuse("--alphabet", o);
  if (o.sentinels) refuse("--sentinels", o);
  if (o.lines) refuse("--lines", o);
  if (o.character_coverage) refuse("--character-coverage", o);
  BpeTrainerOptions t{
      .split_digits = o.split_digits, .encloses = o.encloses, .threads = o.threads, .progress = std::move(progress)};
  t.vocab_size = o.vocab_size.value_or(t.vocab_size);
  t.min_frequency = o.min_frequency.value_or(t.min_frequency);
  if (!o.special.empty()) t.special_tokens = o.special;
  return std::make_unique<BpeTrainer>(std::move(t));
}

std::unique_ptr<TokenizerTrainer> wordpiece_trainer(const TokenizerTraining& o, std::function<void(int32_t)> progress) {
  if (o.split_digits) refuse("--split-digits", o);
  if (o.sentinels) refuse("--sentinels", o);
  if (o.lines) refuse("--lines", o);
  if (o.character_coverage) refuse("--character-coverage", o);
  WordPieceTrainerOptions t{.lowercase = !o.cased, .threads = o.threads, .progress = std::move(progress)};
  t.vocab_size = o.vocab_size.value_or(t.vocab_size);
  t.min_frequency = o.min_frequency.value_or(t.min_frequency);
  t.alphabet = o.alphabet.value_or(t.alphabet);
  if (!o.special.empty()) t.special_tokens = o.special;
  return std::make_unique<WordPieceTrainer>(std::move(t));
}

std::unique_ptr<TokenizerTrainer> unigram_trainer(const TokenizerTraining& o) {
  if (o.cased) refuse("--cased", o);
  if (o.alphabet) refuse("--alphabet", o);
  if (o.min_frequency) refuse("--min-frequency", o);
  if (!o.special.empty()) refuse("--special", o);
  UnigramTrainerOptions t{.split_digits = o.split_digits,
                          .as_model = std::filesystem::path(o.output).extension() == ".model",
                          .threads = o.threads};
  t.vocab_size = o.vocab_size.value_or(t.vocab_size);
  t.sentinels = o.sentinels.value_or(t.sentinels);
  t.lines = o.lines.value_or(t.lines);
  t.character_coverage = o.character_coverage.value_or(t.character_coverage);
  return std::make_unique<UnigramTrainer>(t);
}

// What a family has, where nothing else is asked for.
void become_like(TokenizerTraining& o) {
  if (o.type != "bpe") throw ConfigError("--like {} decides the type; leave --type out", o.like);
  if (o.like == "bert") o.type = "wordpiece";
  if (o.like == "t5") o.type = "unigram", o.sentinels = o.sentinels.value_or(100);
  if (o.like == "roberta" || o.like == "bart") {
    if (!o.special.empty()) throw ConfigError("--like {} decides the special tokens; leave --special out", o.like);
    o.special = {"<s>", "<pad>", "</s>", "<unk>", "<mask>"};
    o.encloses = true;
  }
}

// Found out before an hour of training.
void check_output(const TokenizerTraining& o) {
  const std::string extension = std::filesystem::path(o.output).extension();
  const bool fits = extension == ".json" || extension == "" || (extension == ".txt" && o.type == "wordpiece") ||
                    (extension == ".model" && o.type == "unigram");
  if (!fits)
    throw ConfigError("--output {}: expected a name that ends in .json{}, or a directory", o.output,
                      o.type == "wordpiece" ? " or .txt"
                      : o.type == "unigram" ? " or .model"
                                            : "");
}

}  // namespace

std::vector<std::string> tokenizer_families() { return {"gpt2", "bert", "roberta", "bart", "t5"}; }

void train_tokenizer(TokenizerTraining options) {
  const auto start = Clock::now();
  if (!options.like.empty()) become_like(options);
  check_output(options);
  const auto progress = [](int32_t tokens) {
    console().bar(fmt::format("merging  {} tokens", with_thousands(tokens)));
  };
  const auto trainer = options.type == "bpe"         ? bpe_trainer(options, progress)
                       : options.type == "wordpiece" ? wordpiece_trainer(options, progress)
                                                     : unigram_trainer(options);
  const std::string sample = read_texts(options, *trainer);
  const auto tokenizer = trainer->train();
  console().bar("", true);
  const auto file = tokenizer->save(options.output);
  if (options.vocab_size && tokenizer->vocab_size() < *options.vocab_size)
    console().warn(fmt::format("the text gives only {} tokens instead of {}; more text{} gives more",
                               with_thousands(tokenizer->vocab_size()), with_thousands(*options.vocab_size),
                               options.type == "unigram" ? "" : " or a smaller --min-frequency"));
  std::vector<int32_t> ids;
  tokenizer->encode(sample, ids, {.parse_special = false});
  console().line(fmt::format("{}: {}, {:.2f} bytes a token on the first {}, in {}", file.string(),
                             tokenizer->description(), double(sample.size()) / double(ids.size()),
                             human_bytes(double(sample.size())), human_duration(seconds_since(start))));
}

}  // namespace mixtape
