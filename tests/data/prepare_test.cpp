#include "train/data/prepare.h"

#include <zlib.h>

#include <set>

#include "tests/data/support.h"
#include "train/data/manifest.h"
#include "train/data/ordered_pipeline.h"
#include "train/data/statistics.h"
#include "train/data/tokenizer/tokenizer.h"

namespace mixtape::test {
namespace {

// All files of a directory with their content.
std::map<std::string, std::string> content_of(const fs::path& directory) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::directory_iterator(directory))
    files[entry.path().filename().string()] = read_bytes(entry.path());
  return files;
}

TEST(Prepare, TextComesBackWithoutSpecialTokens) {
  const TemporaryDirectory directory;
  const auto tokenizer = load_tokenizer("bytes");
  const PrepareResult result =
      prepare(*tokenizer, {.inputs = {test::sayings()}, .text = {.separator = "%"}, .output = directory / "out"});
  EXPECT_EQ(result.totals.documents, 5u);
  const auto source = open_tokens(directory / "out");
  ASSERT_EQ(source->num_documents(), 5u);
  EXPECT_EQ(source->info().fingerprint, tokenizer->fingerprint());
  EXPECT_EQ(source->info().eos_id, tokenizer->eos_id());
  EXPECT_EQ(source->info().text_bytes, result.totals.text_bytes);
  const auto documents = documents_of(*source);
  EXPECT_EQ(tokenizer->decode(documents[2]), "The cheapest token is the one you did not have to train on.");
  // The literal in the text is text, not the end of a document.
  EXPECT_NE(tokenizer->decode(documents[3]).find("<|endoftext|>"), std::string::npos);
  for (const auto& document : documents)
    for (const int32_t token : document) EXPECT_FALSE(tokenizer->is_special(token));
  source->verify();
  const auto beside = load_tokenizer(directory / "out" / read_manifest(directory / "out").tokenizer);
  EXPECT_EQ(beside->fingerprint(), tokenizer->fingerprint());
}

fs::path many_lines(const TemporaryDirectory& directory, int lines) {
  const fs::path path = directory / "lines.jsonl.gz";
  const gzFile file = gzopen(path.c_str(), "wb1");
  for (int i = 0; i < lines; ++i) {
    const std::string line =
        "{\"text\": \"document " + std::to_string(i) + std::string(size_t(i * 31 % 400), 'x') + "\"}\n";
    gzwrite(file, line.data(), unsigned(line.size()));
  }
  gzclose(file);
  return path;
}

TEST(Prepare, ShardsDoNotDependOnWorkersAndMemoryIsBounded) {
  const TemporaryDirectory directory;
  const auto tokenizer = load_tokenizer("bytes");
  const std::string input = many_lines(directory, 40000).string();  // some 9 MB in 30 and more chunks
  std::map<std::string, std::string> first;
  for (const int workers : {1, 2, 5}) {
    const PrepareOptions options{.inputs = {input},
                                 .output = directory / ("out" + std::to_string(workers)),
                                 .shard_tokens = 1000000,
                                 .workers = workers};
    uint64_t reports = 0;
    const PrepareResult result = prepare(*tokenizer, options, [&](const PrepareProgress&) { ++reports; });
    EXPECT_LE(result.most_in_flight, 4 * workers);
    EXPECT_GT(reports, 20u);
    EXPECT_GT(result.shards, 5u);
    EXPECT_EQ(result.totals.bytes_read, result.totals.bytes_total);
    const auto files = content_of(options.output);
    if (first.empty()) first = files;
    EXPECT_TRUE(files == first) << workers;
  }
  const auto source = open_tokens(directory / "out2");
  ASSERT_EQ(source->num_documents(), 40000u);
  for (const uint64_t d : {0u, 1u, 12345u, 39999u}) {
    const DocumentSpan span = source->document(d);
    std::vector<int32_t> tokens(span.length);
    source->read(span.first, tokens);
    EXPECT_TRUE(tokenizer->decode(tokens).starts_with("document " + std::to_string(d))) << d;
  }
}

TEST(Prepare, ValidationSplit) {
  const TemporaryDirectory directory;
  const auto tokenizer = load_tokenizer("bytes");
  const std::string input = many_lines(directory, 2000).string();
  const PrepareResult result =
      prepare(*tokenizer, {.inputs = {input}, .output = directory / "out", .validation_split = 0.1});
  const auto training = documents_of(*open_tokens(directory / "out" / "train"));
  const auto validation = documents_of(*open_tokens(directory / "out" / "validation"));
  EXPECT_EQ(validation.size(), result.validation_documents);
  EXPECT_EQ(training.size() + validation.size(), 2000u);
  EXPECT_NEAR(double(validation.size()), 200, 60);
  std::set<std::vector<int32_t>> all(training.begin(), training.end());
  all.insert(validation.begin(), validation.end());
  EXPECT_EQ(all.size(), 2000u);
  EXPECT_NE(error_of([&] { open_tokens(directory / "out"); }).find("train"), std::string::npos);
}

TEST(Prepare, FailureLeavesNothingThatLooksComplete) {
  const TemporaryDirectory directory;
  const auto tokenizer = load_tokenizer("bytes");
  std::string lines;
  for (int i = 0; i < 20000; ++i) lines += "{\"text\": \"a document of some length " + std::to_string(i) + "\"}\n";
  write_bytes(directory / "bad.jsonl", lines + "broken\n");
  PrepareOptions options{
      .inputs = {(directory / "bad.jsonl").string()}, .output = directory / "out", .shard_tokens = 100000};
  EXPECT_NE(error_of([&] { prepare(*tokenizer, options); }).find("bad.jsonl:20001"), std::string::npos);
  EXPECT_FALSE(fs::exists(directory / "out" / manifest_name));
  EXPECT_THROW(open_tokens(directory / "out"), DataError);

  write_bytes(directory / "bad.jsonl", lines);
  prepare(*tokenizer, options);  // takes the leftovers away
  EXPECT_EQ(open_tokens(directory / "out")->num_documents(), 20000u);
  EXPECT_NE(error_of([&] { prepare(*tokenizer, options); }).find("--overwrite"), std::string::npos);
  options.overwrite = true;
  options.append_eos = false;
  prepare(*tokenizer, options);
  EXPECT_EQ(open_tokens(directory / "out")->info().eos_id, std::nullopt);
  EXPECT_EQ(open_tokens(directory / "out")->num_documents(), 20000u);
}

TEST(Prepare, FullDiskIsAnErrorThatNamesTheFile) {
  if (!fs::exists("/dev/full")) GTEST_SKIP() << "no /dev/full";
  const TemporaryDirectory directory;
  const auto tokenizer = load_tokenizer("bytes");
  fs::create_directories(directory / "out");
  // A .partial that leads to a full disk; the writer opens it through the link, as it would a file.
  fs::create_symlink("/dev/full", directory / "a.tokens.partial");
  EXPECT_NE(error_of([&] {
              ShardWriter writer(directory / "a.tokens", 1, 10, -1);
              writer.append(std::vector<int32_t>(2 << 20, 1));
            }).find("No space left"),
            std::string::npos);
  EXPECT_FALSE(fs::exists(directory / "a.tokens"));
}

TEST(OrderedPipeline, KeepsOrderAndBound) {
  int made = 0;
  std::vector<int> out;
  OrderedPipeline<int, int> pipeline(4, 6);
  const int most = pipeline.run([&] { return made < 1000 ? std::optional(made++) : std::nullopt; },
                                [](int&& i) { return i * 2; }, [&](int&& i) { out.push_back(i); });
  EXPECT_LE(most, 6);
  ASSERT_EQ(out.size(), 1000u);
  for (int i = 0; i < 1000; ++i) EXPECT_EQ(out[size_t(i)], 2 * i);
}

TEST(OrderedPipeline, AnErrorAnywhereEndsIt) {
  for (const int where : {0, 1, 2}) {
    int made = 0;
    const auto fail_at = [&](int stage, int i) {
      if (stage == where && i == 50) throw DataError("stage {}", stage);
    };
    OrderedPipeline<int, int> pipeline(3, 5);
    EXPECT_THROW(pipeline.run(
                     [&] {
                       fail_at(0, made);
                       return std::optional(made++);
                     },
                     [&](int&& i) {
                       fail_at(1, i);
                       return i;
                     },
                     [&](int&& i) { fail_at(2, i); }),
                 DataError);
  }
}

TEST(Statistics, CountsWhatIsThere) {
  const MemorySource source({{1, 2, 2}, {}, {2}, {3, 3, 3, 3, 1, 1, 1, 1}});
  const TokenStatistics s = measure(source, 5);
  EXPECT_EQ(s.documents, 4u);
  EXPECT_EQ(s.empty_documents, 1u);
  EXPECT_EQ(s.tokens, 12u);
  EXPECT_EQ(s.longest, 8u);
  EXPECT_EQ(s.lengths, (std::vector<uint64_t>{1, 1, 0, 1}));
  EXPECT_EQ(s.distinct(), 3u);
  EXPECT_EQ(s.most_frequent(2), (std::vector<std::pair<int32_t, uint64_t>>{{1, 5}, {3, 4}}));
  EXPECT_EQ(measure(source, 3).outside_vocabulary, 4u);
  EXPECT_EQ(measure(source, 0).counts.size(), 4u);
}

}  // namespace
}  // namespace mixtape::test
