// mixtape tokenizer train | encode | decode
#include <charconv>
#include <cstdio>
#include <fstream>
#include <functional>
#include <iostream>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/base/clock.h"
#include "core/base/error.h"
#include "train/cli/commands.h"
#include "train/data/text_reader.h"
#include "train/data/tokenizer/bpe_trainer.h"
#include "train/data/tokenizer/tokenizer.h"
#include "train/data/tokenizer/unigram_trainer.h"
#include "train/data/tokenizer/wordpiece_trainer.h"
#include "train/report/console.h"
#include "train/report/units.h"

namespace mixtape {
namespace {

// What belongs to one algorithm stays unset for the others, so that no option is taken and then ignored.
struct TrainOptions {
  std::vector<std::string> inputs;
  std::string output = "tokenizer.json";
  std::string key = "text";
  std::string type = "bpe";
  std::optional<int32_t> vocab_size, alphabet, sentinels;
  std::optional<int64_t> min_frequency, lines;
  std::optional<double> character_coverage;
  std::vector<std::string> special;
  bool split_digits = false, cased = false;
  int threads = 0;
};

uint64_t total_size(const std::vector<std::filesystem::path>& files) {
  uint64_t bytes = 0;
  for (const auto& file : files) bytes += std::filesystem::file_size(file);
  return bytes;
}

// The start of the text, kept to measure how well the tokenizer compresses.
constexpr size_t sample_bytes = size_t{4} << 20;

// Feeds all text to the trainer; returns the sample.
std::string read_texts(const TrainOptions& options, TokenizerTrainer& trainer) {
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

[[noreturn]] void refuse(const char* option, const TrainOptions& options) {
  throw ConfigError("{} has no meaning for --type {}", option, options.type);
}

std::unique_ptr<TokenizerTrainer> bpe_trainer(const TrainOptions& o, std::function<void(int32_t)> progress) {
  if (o.cased) refuse("--cased", o);
  if (o.alphabet) refuse("--alphabet", o);
  if (o.sentinels) refuse("--sentinels", o);
  if (o.lines) refuse("--lines", o);
  if (o.character_coverage) refuse("--character-coverage", o);
  BpeTrainerOptions t{.split_digits = o.split_digits, .threads = o.threads, .progress = std::move(progress)};
  t.vocab_size = o.vocab_size.value_or(t.vocab_size);
  t.min_frequency = o.min_frequency.value_or(t.min_frequency);
  if (!o.special.empty()) t.special_tokens = o.special;
  return std::make_unique<BpeTrainer>(std::move(t));
}

std::unique_ptr<TokenizerTrainer> wordpiece_trainer(const TrainOptions& o, std::function<void(int32_t)> progress) {
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

std::unique_ptr<TokenizerTrainer> unigram_trainer(const TrainOptions& o) {
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

// Found out before an hour of training.
void check_output(const TrainOptions& o) {
  const std::string extension = std::filesystem::path(o.output).extension();
  const bool fits = extension == ".json" || extension == "" || (extension == ".txt" && o.type == "wordpiece") ||
                    (extension == ".model" && o.type == "unigram");
  if (!fits)
    throw ConfigError("--output {}: expected a name that ends in .json{}, or a directory", o.output,
                      o.type == "wordpiece" ? " or .txt"
                      : o.type == "unigram" ? " or .model"
                                            : "");
}

void train(const TrainOptions& options) {
  const auto start = Clock::now();
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

// A file, or standard input for none or "-".
std::string read_input(const std::string& name) {
  if (name.empty() || name == "-") return {std::istreambuf_iterator<char>(std::cin), {}};
  if (std::filesystem::is_directory(name)) throw DataError("{}: is a directory, expected a file", name);
  std::ifstream file(name, std::ios::binary);
  if (!file) throw DataError("{}: cannot be opened", name);
  return {std::istreambuf_iterator<char>(file), {}};
}

void write_output(std::string_view text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0)
    throw DataError("standard output cannot be written");
}

struct EncodeCommand {
  std::string tokenizer, input;
  std::optional<std::string> text;
  bool pieces = false, plain = false, add_special = false;

  void run() const {
    const auto loaded = load_tokenizer(tokenizer);
    std::vector<int32_t> ids;
    loaded->encode(text ? *text : read_input(input), ids, {.parse_special = !plain, .add_special = add_special});
    std::string out;
    for (const int32_t id : ids) {
      if (pieces)
        out += fmt::format("{}\t{}\n", id, printable(loaded->token_text(id)));
      else
        out += fmt::format("{}{}", out.empty() ? "" : " ", id);
    }
    write_output(pieces ? out : out + "\n");
  }
};

// Numbers apart by blanks, commas or brackets: what `encode` prints, and lists as other programs print them.
std::vector<int32_t> parse_ids(std::string_view text) {
  constexpr std::string_view separators = " \t\r\n,[]";
  std::vector<int32_t> ids;
  for (size_t at = text.find_first_not_of(separators); at < text.size(); at = text.find_first_not_of(separators, at)) {
    const std::string_view word = text.substr(at, text.find_first_of(separators, at) - at);
    int32_t id = 0;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), id);
    if (error != std::errc{} || end != word.data() + word.size())
      throw DataError("'{}' is not a token id; expected whole numbers apart by blanks or commas",
                      printable(word.substr(0, 40)));
    ids.push_back(id);
    at += word.size();
  }
  return ids;
}

struct DecodeCommand {
  std::string tokenizer, input;
  bool skip_special = false;

  void run() const {
    const auto loaded = load_tokenizer(tokenizer);
    write_output(loaded->decode(parse_ids(read_input(input)), skip_special));
  }
};

void add_train(Command& group) {
  const auto options = std::make_shared<TrainOptions>();
  Command command = group.subcommand("train", "Train a tokenizer on text");
  command.option("FILES", options->inputs, "Text or JSONL, also .gz or .zst; files, directories, patterns").required();
  command.option("-o,--output", options->output, "tokenizer.json, vocab.txt or .model to write, or a directory for it");
  command.option("--type", options->type, "bpe (byte level), wordpiece (BERT) or unigram (T5)")
      .one_of({"bpe", "wordpiece", "unigram"});
  command.option("--vocab-size", options->vocab_size, "All tokens [bpe 8192, wordpiece 30522, unigram 32100]")
      .range(1, 1 << 24);
  command.option("--min-frequency", options->min_frequency, "bpe, wordpiece: rarer pairs are not merged [2]")
      .range(1, 1e12);
  command.option("--special", options->special,
                 "bpe: special tokens, ids from 0 in this order [<|endoftext|>]; wordpiece: more than [PAD], [UNK], "
                 "[CLS], [SEP], [MASK]");
  command.flag("--split-digits", options->split_digits, "bpe, unigram: every digit becomes a token of its own");
  command.flag("--cased", options->cased, "wordpiece: keep upper case and accents");
  command.option("--alphabet", options->alphabet, "wordpiece: characters that become tokens [1000]").range(1, 1 << 24);
  command.option("--sentinels", options->sentinels, "unigram: <extra_id_N> for span corruption; T5 has 100 [0]")
      .range(0, 1 << 16);
  command
      .option("--character-coverage", options->character_coverage,
              "unigram: share of the text's characters that have a token [0.9995]")
      .range(0.9, 1);
  command.option("--lines", options->lines, "unigram: lines to train on, drawn evenly [2000000]").range(1, 1e12);
  command.option("--key", options->key, "Key of the text in JSONL");
  command.option("--threads", options->threads, "0: all processors").range(0, 1024);
  command.action([options] { train(*options); });
}

constexpr const char* tokenizer_help =
    "tokenizer.json, vocab.txt, a SentencePiece .model, a directory with one, or 'bytes'";

void add_encode(Command& group) {
  const auto options = std::make_shared<EncodeCommand>();
  Command command = group.subcommand("encode", "Text to token ids");
  command.option("TOKENIZER", options->tokenizer, tokenizer_help).required();
  command.option("FILE", options->input, "Text file; standard input if left out or -");
  command.option("--text", options->text, "The text itself instead of a file");
  command.flag("--pieces", options->pieces, "One token a line, with its spelling");
  command.flag("--plain", options->plain, "Literals of special tokens stay text, as in data preparation");
  command.flag("--add-special", options->add_special, "Add what the tokenizer's template puts around a text");
  command.action([options] { options->run(); });
}

void add_decode(Command& group) {
  const auto options = std::make_shared<DecodeCommand>();
  Command command = group.subcommand("decode", "Token ids to text");
  command.option("TOKENIZER", options->tokenizer, tokenizer_help).required();
  command.option("FILE", options->input, "Ids apart by blanks or commas; standard input if left out or -");
  command.flag("--skip-special", options->skip_special, "Leave special tokens out");
  command.action([options] { options->run(); });
}

}  // namespace

void add_tokenizer_command(Command& app) {
  Command group = app.subcommand("tokenizer", "Train a tokenizer, encode text, decode ids");
  group.require_subcommand();
  add_train(group);
  add_encode(group);
  add_decode(group);
}

}  // namespace mixtape
