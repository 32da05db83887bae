#include "train/data/tokenizer/unigram_trainer.h"

#include <sentencepiece_trainer.h>

#include <algorithm>
#include <thread>
#include <unordered_map>

#include "core/base/error.h"
#include "core/base/philox.h"
#include "core/base/utf8.h"
#include "train/data/tokenizer/pipeline_tokenizer.h"
#include "train/data/tokenizer/sentencepiece_model.h"
#include "train/data/tokenizer/sentencepiece_tokenizer.h"

namespace mixtape {
namespace {

constexpr size_t longest_line = 4096;  // bytes; the library leaves longer ones out
constexpr int32_t least_pieces = 8;

class LineIterator final : public sentencepiece::SentenceIterator {
 public:
  explicit LineIterator(const std::vector<std::string>& lines) : lines_(lines) {}
  bool done() const override { return at_ == lines_.size(); }
  void Next() override { ++at_; }
  const std::string& value() const override { return lines_[at_]; }
  sentencepiece::util::Status status() const override { return {}; }

 private:
  const std::vector<std::string>& lines_;
  size_t at_ = 0;
};

// Where a line that is too long is cut: behind the last blank, else between two characters.
size_t cut_of(std::string_view line) {
  if (line.size() <= longest_line) return line.size();
  const size_t blank = line.rfind(' ', longest_line - 1);
  if (blank != line.npos && blank > 0) return blank;
  size_t end = longest_line;
  while (end > 1 && (static_cast<uint8_t>(line[end]) & 0xC0) == 0x80) --end;
  return end;
}

}  // namespace

UnigramTrainer::UnigramTrainer(UnigramTrainerOptions options) : options_(std::move(options)) {
  const int64_t least = int64_t{options_.sentinels} + least_pieces;
  if (options_.sentinels < 0 || options_.vocab_size < least || options_.vocab_size > most_tokens)
    throw ConfigError("vocab size is {} with {} sentinels, expected {} to {}", options_.vocab_size, options_.sentinels,
                      least, most_tokens);
  if (!(options_.character_coverage > 0.9 && options_.character_coverage <= 1))
    throw ConfigError("character coverage is {}, expected more than 0.9 and at most 1", options_.character_coverage);
  if (options_.lines < 1) throw ConfigError("lines to train on: {}, expected at least 1", options_.lines);
  if (options_.threads <= 0) options_.threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
}

void UnigramTrainer::add(std::string text) {
  if (!is_utf8(text)) text = to_valid_utf8(text);
  for (std::string_view rest = text; !rest.empty();) {
    std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(line.size() + 1, rest.size()));
    for (size_t end; !line.empty(); line.remove_prefix(end)) add_line(line.substr(0, end = cut_of(line)));
  }
}

// Every line is kept with the same probability, which depends on its number alone (Vitter's algorithm R).
void UnigramTrainer::add_line(std::string_view line) {
  if (line.find_first_not_of(" \t\r") == line.npos) return;
  const auto most = static_cast<uint64_t>(options_.lines);
  const uint64_t number = seen_++;
  if (number < most) {
    lines_.emplace_back(line);
    return;
  }
  const auto random = philox(philox_key(0), number, 0, Purpose::shuffle);
  const uint64_t place = (static_cast<uint64_t>(random[0]) << 32 | random[1]) % seen_;
  if (place < most) lines_[place] = line;
}

std::string UnigramTrainer::train_model(int32_t pieces) const {
  const std::unordered_map<std::string, std::string> settings = {
      {"model_type", "unigram"},
      {"vocab_size", std::to_string(pieces)},
      {"hard_vocab_limit", "false"},  // too little text gives a smaller vocabulary
      {"pad_id", "0"},
      {"eos_id", "1"},
      {"unk_id", "2"},
      {"bos_id", "-1"},
      {"normalization_rule_name", "nmt_nfkc"},
      {"character_coverage", fmt::format("{}", options_.character_coverage)},
      {"split_digits", options_.split_digits ? "true" : "false"},
      {"max_sentence_length", std::to_string(longest_line)},
      {"num_threads", std::to_string(options_.threads)},
      {"minloglevel", "2"},
  };
  LineIterator lines(lines_);
  std::string model;
  const auto status = sentencepiece::SentencePieceTrainer::Train(settings, &lines, &model);
  if (!status.ok())
    throw DataError(
        "SentencePiece cannot train {} pieces on {} lines; where the vocabulary is too small for the characters, "
        "choose a "
        "greater --vocab-size or a smaller --character-coverage. Its own words: {}",
        pieces, lines_.size(), status.ToString());
  return model;
}

std::unique_ptr<Tokenizer> UnigramTrainer::train() {
  if (lines_.empty()) throw DataError("no text to train a tokenizer on: all documents are empty");
  const std::string model = train_model(options_.vocab_size - options_.sentinels);
  const std::string source = "trained tokenizer";
  if (options_.as_model) return std::make_unique<SentencePieceTokenizer>(model, source, options_.sentinels);
  TokenizerDefinition definition = t5_definition(read_sentencepiece_model(model, source), options_.sentinels, source);
  return std::make_unique<PipelineTokenizer>(std::move(definition), source);
}

}  // namespace mixtape
