// mixtape bench tokenizer TOKENIZER FILE
#include <algorithm>
#include <atomic>
#include <nlohmann/json.hpp>
#include <thread>

#include "core/base/clock.h"
#include "core/base/error.h"
#include "train/cli/bench.h"
#include "train/cli/commands.h"
#include "train/data/mapped_file.h"
#include "train/data/tokenizer/tokenizer.h"
#include "train/report/machine.h"

namespace mixtape {
namespace {

struct BenchTokenizerArguments {
  std::string tokenizer, file;
  int threads = 0;
  int64_t document = 8192;
  double seconds = 3;
  bool json = false;
};

// The text in documents of about `size` bytes that end with a line, as data preparation reads them.
std::vector<std::string_view> documents_of(std::string_view text, size_t size) {
  std::vector<std::string_view> documents;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n', std::min(size, text.size())), text.size() - 1) + 1;
    documents.push_back(text.substr(0, end));
    text.remove_prefix(end);
  }
  return documents;
}

// Encodes all documents once; returns the number of tokens.
int64_t encode_all(const Tokenizer& tokenizer, const std::vector<std::string_view>& documents, int threads) {
  std::atomic<size_t> next = 0;
  std::atomic<int64_t> tokens = 0;
  const auto work = [&] {
    std::vector<int32_t> ids;
    for (size_t i; (i = next.fetch_add(1)) < documents.size();) {
      ids.clear();
      tokenizer.encode(documents[i], ids, {.parse_special = false});
      tokens += static_cast<int64_t>(ids.size());
    }
  };
  std::vector<std::jthread> others;
  for (int i = 1; i < threads; ++i) others.emplace_back(work);
  work();
  others.clear();
  return tokens;
}

void run_bench_tokenizer(const BenchTokenizerArguments& a) {
  const auto tokenizer = load_tokenizer(a.tokenizer);
  const MappedFile file(a.file);
  const std::string_view text(reinterpret_cast<const char*>(file.data()), file.size());
  if (text.empty()) throw DataError("{}: is empty, expected text to encode", a.file);
  const auto documents = documents_of(text, static_cast<size_t>(a.document));
  const int threads = a.threads > 0 ? a.threads : available_cores();
  int64_t tokens = encode_all(*tokenizer, documents, threads);  // warms up; not counted
  int passes = 0;
  double least = 0, total = 0;
  while (total < a.seconds || passes < 3) {
    const auto start = Clock::now();
    tokens = encode_all(*tokenizer, documents, threads);
    const double seconds = seconds_since(start);
    least = passes == 0 ? seconds : std::min(least, seconds);
    total += seconds;
    ++passes;
  }
  const double rate = static_cast<double>(text.size()) / least;
  if (a.json) {
    const nlohmann::json line = {{"bytes_per_second", rate},
                                 {"tokens", tokens},
                                 {"bytes", text.size()},
                                 {"threads", threads},
                                 {"passes", passes}};
    fmt::print("{}\n", line.dump());
    return;
  }
  fmt::print("{}\n{:.1f} MB/s on {} threads, the best of {} passes; {:.2f} bytes a token\n", tokenizer->description(),
             rate / 1e6, threads, passes, static_cast<double>(text.size()) / static_cast<double>(tokens));
}

}  // namespace

void add_bench_tokenizer(Command& bench) {
  Command command = bench.subcommand("tokenizer", "encode a text again and again");
  const auto a = std::make_shared<BenchTokenizerArguments>();
  command.option("TOKENIZER", a->tokenizer, "as for `mixtape tokenizer encode`").required();
  command.option("FILE", a->file, "the text").required();
  command.option("--threads", a->threads, "0: all processors").range(0, 1024);
  command.option("--document", a->document, "bytes of a document, about").range(1, 1 << 30);
  command.option("--seconds", a->seconds, "passes over the text go on so long").range(0, 3600);
  command.flag("--json", a->json, "one line of JSON in place of text");
  command.action([a] { run_bench_tokenizer(*a); });
}

}  // namespace mixtape
