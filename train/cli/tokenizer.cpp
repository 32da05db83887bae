// mixtape tokenizer train | encode | decode
#include <charconv>
#include <cstdio>
#include <fstream>
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
#include "train/report/console.h"
#include "train/report/units.h"

namespace mixtape {
namespace {

struct TrainOptions {
  std::vector<std::string> inputs;
  std::string output = "tokenizer.json";
  std::string key = "text";
  BpeTrainerOptions trainer;
};

uint64_t total_size(const std::vector<std::filesystem::path>& files) {
  uint64_t bytes = 0;
  for (const auto& file : files) bytes += std::filesystem::file_size(file);
  return bytes;
}

// The start of the text, kept to measure how well the tokenizer compresses.
constexpr size_t sample_bytes = size_t{4} << 20;

// Feeds all text to the trainer; returns the sample.
std::string read_texts(const TrainOptions& options, BpeTrainer& trainer) {
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

void train(TrainOptions options) {
  const auto start = Clock::now();
  const int32_t wanted = options.trainer.vocab_size;
  options.trainer.progress = [wanted](int32_t tokens) {
    console().bar(fmt::format("merging  {} of {} tokens", with_thousands(tokens), with_thousands(wanted)));
  };
  BpeTrainer trainer(options.trainer);
  const std::string sample = read_texts(options, trainer);
  const auto tokenizer = trainer.train();
  console().bar("", true);
  const auto file = tokenizer->save(options.output);
  if (tokenizer->vocab_size() < wanted)
    console().warn(
        fmt::format("the text gives only {} tokens instead of {}: no other pair occurs {} times; more text or "
                    "a smaller --min-frequency gives more",
                    with_thousands(tokenizer->vocab_size()), with_thousands(wanted), options.trainer.min_frequency));
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
  Command command = group.subcommand("train", "Train a byte-level BPE tokenizer on text");
  command.option("FILES", options->inputs, "Text or JSONL, also .gz or .zst; files, directories, patterns").required();
  command.option("-o,--output", options->output, "tokenizer.json to write, or a directory for it");
  command.option("--vocab-size", options->trainer.vocab_size, "All tokens: special ones, 256 bytes, merges")
      .range(257, 1 << 24);
  command.option("--min-frequency", options->trainer.min_frequency, "Rarer pairs are not merged").range(1, 1e12);
  command.flag("--split-digits", options->trainer.split_digits, "Every digit becomes a token of its own");
  command.option("--special", options->trainer.special_tokens, "Special tokens, ids from 0 in this order");
  command.option("--key", options->key, "Key of the text in JSONL");
  command.option("--threads", options->trainer.threads, "0: all processors").range(0, 1024);
  command.action([options] { train(*options); });
}

constexpr const char* tokenizer_help = "tokenizer.json, a SentencePiece .model, a directory with one, or 'bytes'";

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
