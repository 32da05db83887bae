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

#include "core/base/error.h"
#include "train/cli/commands.h"
#include "train/cli/tokenizer_training.h"
#include "train/data/tokenizer/tokenizer.h"
#include "train/report/console.h"

namespace mixtape {
namespace {

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
  const auto options = std::make_shared<TokenizerTraining>();
  Command command = group.subcommand("train", "Train a tokenizer on text");
  command.option("FILES", options->inputs, "Text or JSONL, also .gz or .zst; files, directories, patterns").required();
  command.option("-o,--output", options->output, "tokenizer.json, vocab.txt or .model to write, or a directory for it");
  command.option("--type", options->type, "bpe (byte level), wordpiece (BERT) or unigram (T5)")
      .one_of({"bpe", "wordpiece", "unigram"});
  command.option("--like", options->like, "In place of --type: the kind that a family has, with its special tokens")
      .one_of(tokenizer_families());
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
  command.action([options] { train_tokenizer(*options); });
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
