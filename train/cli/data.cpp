// mixtape data prepare | inspect | stats: text to token shards, and a look at what is in them.
#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/base/error.h"
#include "train/cli/commands.h"
#include "train/cli/data_inspect.h"
#include "train/cli/tokenizer_training.h"
#include "train/data/manifest.h"
#include "train/data/prepare.h"
#include "train/data/statistics.h"
#include "train/data/token_source.h"
#include "train/data/tokenizer/tokenizer.h"
#include "train/report/console.h"
#include "train/report/units.h"

namespace mixtape {
namespace {

namespace fs = std::filesystem;

struct ViewOptions {
  std::string path, tokenizer, format = "auto";
  int documents = 3, tokens = 200, top = 20;
};

void report_prepared(const PrepareOptions& options, const PrepareResult& result) {
  const PrepareProgress& totals = result.totals;
  console().line(fmt::format("{}: {}, {} in {} ({:.2f} bytes a token)", options.output.string(),
                             counted(int64_t(totals.documents), "document"), counted(int64_t(totals.tokens), "token"),
                             counted(int64_t(result.shards), "shard"),
                             double(totals.text_bytes) / double(std::max<uint64_t>(totals.tokens, 1))));
  if (options.validation_split > 0)
    console().line(fmt::format("of these, {} in {} for validation",
                               counted(int64_t(result.validation_documents), "document"),
                               (options.output / "validation").string()));
  if (result.text.repaired > 0)
    console().warn(fmt::format("broken UTF-8 in {} of text was replaced by U+FFFD",
                               counted(int64_t(result.text.repaired), "piece")));
  if (result.text.skipped_lines > 0)
    console().warn(fmt::format("{} skipped, the first: {}", counted(int64_t(result.text.skipped_lines), "bad line"),
                               result.text.first_skipped));
}

struct NewTokenizer {
  std::string family;  // empty for none
  std::optional<int32_t> vocab_size;
};

// OUTPUT/tokenizer.json, trained on the files unless it is there from before.
std::string new_tokenizer(const NewTokenizer& wanted, const PrepareOptions& options) {
  const fs::path file = options.output / "tokenizer.json";
  if (fs::exists(file) && !options.overwrite) {
    console().line(fmt::format("{} is there and is taken; --overwrite makes a new one", file.string()));
    return file;
  }
  fs::create_directories(options.output);
  TokenizerTraining training;
  training.like = wanted.family;
  training.inputs = options.inputs;
  training.output = file;
  training.key = options.text.key;
  training.vocab_size = wanted.vocab_size;
  training.threads = options.workers;
  train_tokenizer(training);
  return file;
}

void run_prepare(const std::string& tokenizer_path, const PrepareOptions& options) {
  const auto tokenizer = load_tokenizer(tokenizer_path);
  std::unique_ptr<Progress> bar;
  const PrepareResult result = prepare(*tokenizer, options, [&](const PrepareProgress& now) {
    if (!bar) bar = std::make_unique<Progress>("tokenizing", int64_t(now.bytes_total), Unit::bytes);
    bar->note(human_count(double(now.tokens)) + " tokens");
    bar->set(int64_t(now.bytes_read));
  });
  if (bar) {
    bar->set(int64_t(result.totals.bytes_total));
    bar->finish();
  }
  report_prepared(options, result);
}

void add_prepare(Command& data) {
  struct Options {
    std::string tokenizer, invalid_utf8 = "replace";
    NewTokenizer new_tokenizer;
    bool skip_bad_lines = false;
    PrepareOptions prepare;
  };
  const auto options = std::make_shared<Options>();
  PrepareOptions& p = options->prepare;
  Command command = data.subcommand("prepare", "Tokenize text files into a directory of shards");
  command.option("FILES", p.inputs, "Text or JSONL, also .gz or .zst; directories; patterns in quotes").required();
  command.option("-t,--tokenizer", options->tokenizer, "bytes, tokenizer.json, vocab.txt or a SentencePiece .model");
  command
      .option("--new-tokenizer", options->new_tokenizer.family,
              "Instead: train one on FILES first, as OUTPUT/tokenizer.json, of the kind that a family has")
      .one_of(tokenizer_families());
  command.option("--vocab-size", options->new_tokenizer.vocab_size, "Of the new tokenizer").range(1, 1 << 24);
  command.option("-o,--output", p.output, "The directory to write").required();
  command.option("--key", p.text.key, "JSONL: the key that holds a document");
  command.option("--separator", p.text.separator,
                 "Plain text: the line that separates documents, such as '%'; '' for blank lines. Without it a "
                 "file is one document");
  command.option("--validation-split", p.validation_split, "Share of the documents to set apart in OUTPUT/validation")
      .range(0, 0.999);
  command.option("--shard-tokens", p.shard_tokens, "Close a shard after so many tokens")
      .range(1, double(uint64_t(1) << 40));
  command.option("--workers", p.workers, "Threads that tokenize; 0 = one per processor").range(0, 1024);
  command.flag("--append-eos,!--no-append-eos", p.append_eos,
               "Close each document with the end-of-sequence token (default)");
  command.option("--invalid-utf8", options->invalid_utf8, "What to do with broken text: replace (by U+FFFD) or error")
      .one_of({"replace", "error"});
  command.flag("--skip-bad-lines", options->skip_bad_lines, "JSONL: count bad lines instead of stopping");
  command.flag("--overwrite", p.overwrite, "Replace what was prepared in OUTPUT before");
  command.action([options] {
    TextOptions& text = options->prepare.text;
    if (options->invalid_utf8 == "error") text.invalid_utf8 = InvalidUtf8::error;
    if (options->skip_bad_lines) text.bad_line = BadLine::skip;
    const NewTokenizer& wanted = options->new_tokenizer;
    if (options->tokenizer.empty() == wanted.family.empty())
      throw ConfigError("data prepare: expected one of --tokenizer and --new-tokenizer");
    if (wanted.vocab_size && wanted.family.empty()) throw ConfigError("--vocab-size is for --new-tokenizer");
    run_prepare(wanted.family.empty() ? options->tokenizer : new_tokenizer(wanted, options->prepare), options->prepare);
  });
}

// The tokenizer that was named, or the one that lies beside the shards.
std::unique_ptr<Tokenizer> tokenizer_for(const ViewOptions& options) {
  if (!options.tokenizer.empty()) return load_tokenizer(options.tokenizer);
  const fs::path directory =
      fs::is_directory(options.path) ? fs::path(options.path) : fs::path(options.path).parent_path();
  if (!fs::exists(directory / manifest_name)) return nullptr;
  const std::string file = read_manifest(directory).tokenizer;
  return load_tokenizer(file == "bytes" ? fs::path(file) : directory / file);
}

std::shared_ptr<const TokenSource> open_view(const ViewOptions& options, const Tokenizer* tokenizer) {
  OpenTokens open{.format = parse_token_format(options.format)};
  if (tokenizer) open.eos_id = tokenizer->eos_id();
  return open_tokens(options.path, open);
}

void show_header(const TokenSource& source, const Tokenizer* tokenizer) {
  const TokenSourceInfo& info = source.info();
  const auto row = [](std::string_view name, const std::string& value) {
    console().line(fmt::format("{} {}", console().dim(fmt::format("{:<12}", name)), value));
  };
  row("path", printable(info.path));
  row("format", fmt::format("{}, {} bytes a token", name_of(info.format), info.token_bytes));
  row("tokens", with_thousands(int64_t(source.num_tokens())));
  row("documents", with_thousands(int64_t(source.num_documents())));
  if (info.text_bytes)
    row("text", fmt::format("{}, {:.3f} bytes a token", human_bytes(double(*info.text_bytes)),
                            double(*info.text_bytes) / double(std::max<uint64_t>(source.num_tokens(), 1))));
  if (info.vocab_size) row("vocabulary", with_thousands(*info.vocab_size));
  if (info.eos_id) row("end token", std::to_string(*info.eos_id));
  if (info.fingerprint) row("fingerprint", fmt::format("{:016x}", *info.fingerprint));
  if (tokenizer) row("tokenizer", printable(tokenizer->description()));
  if (tokenizer && info.fingerprint && *info.fingerprint != tokenizer->fingerprint())
    console().warn(
        fmt::format("the data was made with another tokenizer (this one is {:016x}): the text below is wrong",
                    tokenizer->fingerprint()));
}

// Tokens in two colours by turns, so that one sees where they begin; ids without a tokenizer.
std::string coloured(std::span<const int32_t> tokens, const Tokenizer* tokenizer) {
  std::string line;
  for (size_t i = 0; i < tokens.size(); ++i) {
    const bool known = tokenizer && tokens[i] >= 0 && tokens[i] < tokenizer->vocab_size();
    std::string text = known ? printable(tokenizer->token_bytes(tokens[i])) : std::to_string(tokens[i]);
    if (!known && i > 0) line += ' ';
    line += i % 2 ? console().accent(text) : text;
  }
  return line;
}

void run_inspect(const ViewOptions& options, uint64_t first) {
  const auto tokenizer = tokenizer_for(options);
  const auto source = open_view(options, tokenizer.get());
  source->verify();
  show_header(*source, tokenizer.get());
  for (uint64_t d = first; d < source->num_documents() && d - first < uint64_t(options.documents); ++d) {
    const DocumentSpan span = source->document(d);
    std::vector<int32_t> tokens(std::min<uint64_t>(span.length, uint64_t(options.tokens)));
    source->read(span.first, tokens);
    console().line("");
    console().line(console().bold(fmt::format("document {} ({} tokens)", d, with_thousands(int64_t(span.length)))));
    console().line(coloured(tokens, tokenizer.get()) + (tokens.size() < span.length ? console().dim(" ...") : ""));
  }
}

// A token as a reader recognises it: line breaks and blanks are seen.
std::string visible(std::string_view token) {
  std::string text;
  for (const char c : token) text += c == '\n' ? "\\n" : c == '\t' ? "\\t" : c == '\r' ? "\\r" : std::string(1, c);
  return "'" + printable(text) + "'";
}

void show_lengths(const TokenStatistics& statistics) {
  console().line(console().bold("tokens of a document"));
  const uint64_t most = *std::max_element(statistics.lengths.begin(), statistics.lengths.end());
  for (size_t k = 0; k < statistics.lengths.size(); ++k) {
    if (statistics.lengths[k] == 0) continue;
    const uint64_t low = uint64_t(1) << k;
    const std::string bar(size_t(40 * double(statistics.lengths[k]) / double(most)), '#');
    console().line(fmt::format("{:>12} to {:>12}  {:>12}{}", with_thousands(int64_t(low)),
                               with_thousands(int64_t(2 * low - 1)), with_thousands(int64_t(statistics.lengths[k])),
                               bar.empty() ? "" : "  " + bar));
  }
}

void show_frequent(const TokenStatistics& statistics, const Tokenizer* tokenizer, int top) {
  console().line(console().bold("most frequent tokens"));
  for (const auto& [id, count] : statistics.most_frequent(size_t(top)))
    console().line(fmt::format("{:>8}  {:>14}  {:>7.3f} %  {}", id, with_thousands(int64_t(count)),
                               100.0 * double(count) / double(statistics.tokens),
                               tokenizer ? visible(tokenizer->token_bytes(id)) : ""));
}

void run_stats(const ViewOptions& options) {
  const auto tokenizer = tokenizer_for(options);
  const auto source = open_view(options, tokenizer.get());
  source->verify();
  show_header(*source, tokenizer.get());
  Progress bar("counting", int64_t(source->num_documents()));
  const int32_t vocab_size = tokenizer ? tokenizer->vocab_size() : source->info().vocab_size.value_or(0);
  const TokenStatistics statistics = measure(*source, vocab_size, [&](uint64_t done) { bar.set(int64_t(done)); });
  bar.set(int64_t(source->num_documents()));
  bar.finish();
  if (statistics.outside_vocabulary > 0)
    throw DataError(
        "{}: {} tokens lie outside the vocabulary of {}: the file is damaged or was made with another "
        "tokenizer",
        options.path, statistics.outside_vocabulary, vocab_size);
  console().line("");
  console().line(
      fmt::format("{} tokens without end tokens, {} of the vocabulary occur; documents: shortest {}, median "
                  "about {}, longest {}, {} empty",
                  with_thousands(int64_t(statistics.tokens)), with_thousands(int64_t(statistics.distinct())),
                  with_thousands(int64_t(statistics.shortest)), with_thousands(int64_t(statistics.median)),
                  with_thousands(int64_t(statistics.longest)), with_thousands(int64_t(statistics.empty_documents))));
  if (tokenizer && !source->info().text_bytes && statistics.tokens > 0) {
    double bytes = 0;
    for (size_t id = 0; id < statistics.counts.size(); ++id)
      if (statistics.counts[id] > 0)
        bytes += double(statistics.counts[id]) * double(tokenizer->token_bytes(int32_t(id)).size());
    console().line(fmt::format("{:.3f} bytes a token", bytes / double(statistics.tokens)));
  }
  if (statistics.tokens == 0) return;
  show_lengths(statistics);
  show_frequent(statistics, tokenizer.get(), options.top);
}

void add_reading_options(Command& command, ViewOptions& options) {
  command.option("-t,--tokenizer", options.tokenizer, "Its tokenizer, where none lies beside the shards");
  command.option("--format", options.format, "auto, mixtape, llmc, nanogpt or megatron");
}

}  // namespace

void add_data_command(Command& app) {
  Command data = app.subcommand("data", "Prepare text for training, and look at what was prepared");
  data.require_subcommand();
  add_prepare(data);

  Command inspect = data.subcommand(
      "inspect", "Show token files, or the samples that a configuration makes of them for its objective");
  const auto inspected = std::make_shared<ViewOptions>();
  const auto samples = std::make_shared<InspectSamples>();
  inspect.option("PATH", samples->arguments, "Token files as for stats; or YAML files and key=value, as for train")
      .required()
      .type_name("PATH|FILE|KEY=VALUE");
  inspect.keep_unknown();
  add_reading_options(inspect, *inspected);
  inspect.option("-n,--documents", inspected->documents, "How many documents or samples to show").range(0, 1e9);
  inspect.option("--first", samples->first, "The first one to show").range(0, 1e9);
  inspect.option("--tokens", inspected->tokens, "Most tokens of a document or a row to show").range(0, 1e9);
  inspect.flag("--validation", samples->validation, "Of a configuration: samples of its validation data");
  inspect.action([inspected, samples, inspect] {
    std::vector<std::string>& words = samples->arguments;
    for (const std::string& extra : inspect.remaining()) words.push_back(extra);
    const fs::path extension = fs::path(words[0]).extension();
    if (extension == ".yaml" || extension == ".yml") {
      samples->count = uint64_t(inspected->documents);
      samples->tokens = inspected->tokens;
      return inspect_samples(*samples);
    }
    if (words.size() > 1)
      throw ConfigError("data inspect: '{}' after {}, expected one path of token files; a configuration ends in .yaml",
                        words[1], words[0]);
    inspected->path = words[0];
    run_inspect(*inspected, samples->first);
  });

  Command stats = data.subcommand("stats", "Count documents and tokens: lengths, frequencies, bytes a token");
  const auto counted = std::make_shared<ViewOptions>();
  stats.option("PATH", counted->path, "A prepared directory, a shard, llm.c's or nanoGPT's .bin, Megatron's .idx")
      .required();
  add_reading_options(stats, *counted);
  stats.option("--top", counted->top, "Most frequent tokens to show").range(0, 1e9);
  stats.action([counted] { run_stats(*counted); });
}

}  // namespace mixtape
