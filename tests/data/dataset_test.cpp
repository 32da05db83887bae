#include "train/data/dataset.h"

#include <algorithm>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>
#include <thread>

#include "tests/data/support.h"
#include "train/data/packed_source.h"

namespace mixtape::test {
namespace {

using SampleTokens = std::vector<int32_t>;
constexpr int32_t eos = 0;

// Documents of different lengths, some empty, whose tokens are all distinct: a token says where it comes from.
std::shared_ptr<MemorySource> distinct_documents(int count, int32_t first_token) {
  std::vector<SampleTokens> documents;
  for (int d = 0; d < count; ++d) {
    documents.emplace_back(size_t(d * 7 % 12));
    for (int32_t& token : documents.back()) token = first_token++;
  }
  return std::make_shared<MemorySource>(documents);
}

std::vector<Sample> samples_of(const Dataset& data, uint64_t begin, uint64_t end) {
  std::vector<Sample> samples(end - begin);
  for (uint64_t i = begin; i < end; ++i) data.sample(i, samples[i - begin]);
  return samples;
}

TEST(Permutation, IsABijectionThatChangesWithSeedAndEpoch) {
  for (const uint64_t size : {1u, 2u, 3u, 17u, 256u, 257u, 5000u}) {
    std::set<uint64_t> seen;
    const Permutation order(size, 1, 2, 3);
    for (uint64_t i = 0; i < size; ++i) {
      ASSERT_LT(order(i), size);
      seen.insert(order(i));
    }
    EXPECT_EQ(seen.size(), size);
  }
  const Permutation a(5000, 1, 2, 3), b(5000, 2, 2, 3), c(5000, 1, 2, 4), d(5000, 1, 3, 3);
  int same = 0;
  for (uint64_t i = 0; i < 5000; ++i) same += (a(i) == b(i)) + (a(i) == c(i)) + (a(i) == d(i)) + (a(i) == i);
  EXPECT_LT(same, 40);  // 4 expected by chance
}

TEST(EpochIndex, GoldenMegatronSampleIndex) {
  std::ifstream in(std::string(MIXTAPE_GOLDEN) + "/objectives/causal.json");
  const auto golden = nlohmann::json::parse(in).at("megatron_sample_index");
  const auto sizes = golden.at("document_sizes").get<std::vector<uint32_t>>();
  const auto order = golden.at("document_order").get<std::vector<uint64_t>>();
  const EpochIndex index(sizes, [&](uint64_t position) { return order[position]; });
  const auto& expected = golden.at("sample_index");
  for (size_t i = 0; i < expected.size(); ++i) {
    const auto place = index.locate(i * golden.at("sequence_length").get<uint64_t>());
    EXPECT_EQ(place.position, expected[i][0].get<uint64_t>());
    EXPECT_EQ(place.offset, expected[i][1].get<uint64_t>());
  }
}

TEST(EpochIndex, ManyDocuments) {
  std::vector<uint32_t> sizes(3000);
  for (size_t d = 0; d < sizes.size(); ++d) sizes[d] = uint32_t(d % 5 == 0 ? 0 : d % 11);
  const EpochIndex index(sizes, Permutation(sizes.size(), 1, 0, 0));
  uint64_t unit = 0;
  for (uint64_t position = 0; position < sizes.size(); ++position)
    for (uint32_t offset = 0; offset < sizes[index.document(position)]; ++offset, ++unit) {
      const auto place = index.locate(unit);
      ASSERT_EQ(place.position, position);
      ASSERT_EQ(place.offset, offset);
    }
}

TEST(Dataset, PackedEpochsHoldEachTokenOnceAndWindowsOverlapByOne) {
  const auto source = distinct_documents(60, 1);
  const Vocabulary vocabulary{.size = 1000, .eos_id = eos};
  for (const int seq_length : {1, 5, 32, 700}) {  // 700 is longer than two epochs
    const Dataset data({{"a", source, 1, 3.0}}, vocabulary, {.seq_length = seq_length, .seed = 9});
    const auto samples = samples_of(data, 0, *data.size());
    SampleTokens stream = {samples[0].tokens[0]};
    for (const Sample& sample : samples) {
      ASSERT_EQ(sample.tokens.front(), stream.back());
      if (&sample != &samples.back()) {
        ASSERT_EQ(sample.tokens.size(), size_t(seq_length) + 1);
      }
      for (size_t t = 1; t < sample.tokens.size(); ++t) {
        const bool starts = std::count(sample.document_starts.begin(), sample.document_starts.end(), int32_t(t)) > 0;
        EXPECT_EQ(starts, sample.tokens[t] == eos && t + 1 < sample.tokens.size());
        stream.push_back(sample.tokens[t]);
      }
    }
    const size_t per_epoch = data.statistics()[0].tokens_per_epoch;
    ASSERT_EQ(stream.size(), 3 * per_epoch);
    for (int epoch = 0; epoch < 3; ++epoch) {
      std::map<int32_t, int> counts;
      for (size_t i = 0; i < per_epoch; ++i) ++counts[stream[size_t(epoch) * per_epoch + i]];
      EXPECT_EQ(size_t(counts[eos]), data.statistics()[0].documents);
      counts.erase(eos);
      EXPECT_EQ(counts.size(), source->num_tokens());
      for (const auto& [token, count] : counts) EXPECT_EQ(count, 1) << token;
    }
    // The order of the second epoch is another one.
    EXPECT_FALSE(std::equal(stream.begin(), stream.begin() + long(per_epoch), stream.begin() + long(per_epoch)));
  }
}

TEST(Dataset, UnpackedRowsAreDocumentsOrConsecutivePartsOfThem) {
  const auto source = distinct_documents(40, 1);
  const Dataset data({{"a", source, 1, 1.0}}, {.size = 1000, .eos_id = eos}, {.seq_length = 4, .pack = false});
  std::map<int32_t, int> as_input, as_target;
  for (const Sample& sample : samples_of(data, 0, *data.size())) {
    EXPECT_LE(sample.tokens.size(), 5u);
    EXPECT_TRUE(sample.document_starts.empty());
    for (size_t t = 0; t + 1 < sample.tokens.size(); ++t)
      ++as_input[sample.tokens[t]], ++as_target[sample.tokens[t + 1]];
  }
  EXPECT_EQ(size_t(as_target[eos]), data.statistics()[0].documents);
  EXPECT_EQ(as_input, as_target);  // eos too: it opens each document
  as_input.erase(eos);
  EXPECT_EQ(as_input.size(), source->num_tokens());
  for (const auto& [token, count] : as_input) EXPECT_EQ(count, 1) << token;
}

TEST(Dataset, ABosOfItsOwnOpensEachDocument) {
  const Vocabulary vocabulary{.size = 1000, .eos_id = eos, .bos_id = 999};
  for (const bool pack : {true, false}) {
    const Dataset data({{"a", distinct_documents(60, 1), 1, 1.0}}, vocabulary, {.seq_length = 7, .pack = pack});
    uint64_t documents = 0;
    for (const Sample& sample : samples_of(data, 0, *data.size())) {
      for (const int32_t start : sample.document_starts) EXPECT_EQ(sample.tokens[size_t(start)], 999);
      for (size_t t = 0; t + 1 < sample.tokens.size(); ++t) {
        documents += sample.tokens[t] == 999;
        EXPECT_EQ(sample.tokens[t] == eos, sample.tokens[t + 1] == 999);
      }
    }
    EXPECT_EQ(documents, data.statistics()[0].documents);
  }
}

// Every part of a document stands between cls and sep, and every token of the text is seen once an epoch.
TEST(Dataset, EnclosedWindowsShowEachTokenOnce) {
  constexpr int32_t cls = 998, sep = 999;
  const auto source = distinct_documents(60, 1);
  const Vocabulary vocabulary{.size = 1000, .eos_id = eos, .cls_id = cls, .sep_id = sep};
  for (const bool pack : {true, false}) {
    for (const int seq_length : {3, 4, 16, 700}) {
      const Dataset data({{"a", source, 1, 1.0}}, vocabulary,
                         {.seq_length = seq_length, .framing = Framing::enclosed, .pack = pack, .seed = 4});
      std::map<int32_t, int> counts;
      for (const Sample& sample : samples_of(data, 0, *data.size())) {
        ASSERT_LE(sample.tokens.size(), size_t(seq_length));
        ASSERT_EQ(sample.tokens.front(), cls);
        ASSERT_EQ(sample.tokens.back(), sep);
        for (const int32_t start : sample.document_starts) {
          EXPECT_EQ(sample.tokens[size_t(start)], cls);
          EXPECT_EQ(sample.tokens[size_t(start) - 1], sep);
        }
        for (const int32_t token : sample.tokens)
          if (token < cls) ++counts[token];
      }
      EXPECT_EQ(counts.size(), source->num_tokens());
      for (const auto& [token, count] : counts) ASSERT_EQ(count, 1) << token << " at " << seq_length;
    }
  }
  EXPECT_NE(error_of([&] {
              Dataset({{"a", source}}, {.size = 1000}, {.seq_length = 8, .framing = Framing::enclosed});
            }).find("cls_token"),
            std::string::npos);
}

TEST(Dataset, PlainWindowsAreTheTextAlone) {
  const auto source = distinct_documents(60, 1);
  for (const bool pack : {true, false}) {
    const Dataset data({{"a", source, 1, 1.0}}, {.size = 1000, .eos_id = 0},
                       {.seq_length = 9, .framing = Framing::plain, .pack = pack});
    uint64_t tokens = 0;
    std::set<int32_t> seen;
    for (const Sample& sample : samples_of(data, 0, *data.size())) {
      tokens += sample.tokens.size();
      seen.insert(sample.tokens.begin(), sample.tokens.end());
    }
    EXPECT_EQ(tokens, source->num_tokens());
    EXPECT_EQ(seen.size(), source->num_tokens());
  }
}

std::vector<DatasetSource> two_sources() {
  return {{"a", distinct_documents(50, 1), 0.7}, {"b", distinct_documents(30, 1000), 0.3}};
}

TEST(Dataset, AnySampleIsAPureFunctionOfSeedAndIndex) {
  const DatasetOptions options{.seq_length = 16, .seed = 4};
  const Vocabulary vocabulary{.size = 2000, .eos_id = eos};
  const Dataset data(two_sources(), vocabulary, options);
  const auto all = samples_of(data, 0, 500);
  for (const uint64_t resume : {1u, 137u, 499u}) {
    const Dataset again(two_sources(), vocabulary, options);
    const auto rest = samples_of(again, resume, 500);
    for (size_t i = 0; i < rest.size(); ++i) ASSERT_EQ(rest[i].tokens, all[resume + i].tokens);
  }
  const Dataset other(two_sources(), vocabulary, {.seq_length = 16, .seed = 5});
  EXPECT_NE(samples_of(other, 0, 1)[0].tokens, all[0].tokens);

  // Far away is as near.
  Sample far;
  data.sample(10'000'000, far);
  EXPECT_EQ(far.tokens.size(), 17u);
}

TEST(Dataset, ManyThreadsGetTheSameSamples) {
  const Dataset data(two_sources(), {.size = 2000, .eos_id = eos}, {.seq_length = 16, .seed = 4});
  const auto expected = samples_of(data, 0, 400);
  const Dataset shared(two_sources(), {.size = 2000, .eos_id = eos}, {.seq_length = 16, .seed = 4});
  std::vector<std::thread> threads;
  std::atomic<int> wrong = 0;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      Sample sample;
      for (uint64_t i = 0; i < 400; ++i) {
        const uint64_t index = (i * 37 + uint64_t(t) * 91) % 400;
        shared.sample(index, sample);
        wrong += sample.tokens != expected[index].tokens;
      }
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

TEST(Dataset, AddingASourceLeavesTheOrderOfTheOthersAlone) {
  const Vocabulary vocabulary{.size = 2000, .eos_id = eos};
  const Dataset alone({two_sources()[1]}, vocabulary, {.seq_length = 16, .seed = 4});
  const Dataset both(two_sources(), vocabulary, {.seq_length = 16, .seed = 4});
  std::vector<SampleTokens> of_b;
  for (const Sample& sample : samples_of(both, 0, 100))
    if (sample.source == 1) of_b.push_back(sample.tokens);
  ASSERT_GT(of_b.size(), 20u);
  const auto expected = samples_of(alone, 0, of_b.size());
  for (size_t i = 0; i < of_b.size(); ++i) EXPECT_EQ(of_b[i], expected[i].tokens);
}

std::set<int32_t> tokens_of(const Dataset& data) {
  std::set<int32_t> tokens;
  for (const Sample& sample : samples_of(data, 0, *data.size()))
    tokens.insert(sample.tokens.begin(), sample.tokens.end());
  tokens.erase(eos);
  return tokens;
}

TEST(Dataset, SplitIsDisjointCompleteAndBlindToTheSeed) {
  const auto source = distinct_documents(400, 1);
  const Vocabulary vocabulary{.size = 10000, .eos_id = eos};
  for (const double share : {0.001, 0.2}) {
    DatasetOptions options{.seq_length = 16, .split = Split::validation, .validation_split = share, .seed = 1};
    const auto validation = tokens_of(Dataset({{"a", source, 1, 1.0}}, vocabulary, options));
    options.seed = 2;
    EXPECT_EQ(tokens_of(Dataset({{"a", source, 1, 1.0}}, vocabulary, options)), validation);
    options.split = Split::training;
    const auto training = tokens_of(Dataset({{"a", source, 1, 1.0}}, vocabulary, options));
    EXPECT_FALSE(validation.empty());
    EXPECT_EQ(validation.size() + training.size(), source->num_tokens());
    for (const int32_t token : validation) EXPECT_FALSE(training.contains(token));
    if (share == 0.2) {
      EXPECT_NEAR(double(validation.size()) / double(source->num_tokens()), 0.2, 0.08);
    }
  }
}

TEST(Dataset, ErrorsNameTheRemedy) {
  const auto one = std::make_shared<MemorySource>(std::vector<SampleTokens>{{1, 2, 3}});
  const Vocabulary vocabulary{.size = 10, .eos_id = eos};
  const DatasetOptions split{.seq_length = 4, .split = Split::training, .validation_split = 0.1};
  EXPECT_NE(error_of([&] { Dataset({{"a", one}}, vocabulary, split); }).find("--separator"), std::string::npos);

  const auto high = std::make_shared<MemorySource>(std::vector<SampleTokens>{{1, 10, 3}});
  const auto negative = std::make_shared<MemorySource>(std::vector<SampleTokens>{{1, -1, 3}});
  Sample sample;
  for (const auto& bad : {high, negative}) {
    const Dataset data({{"a", bad}}, vocabulary, {.seq_length = 4});
    EXPECT_NE(error_of([&] { data.sample(0, sample); }).find("vocabulary of 10"), std::string::npos);
  }
  const Dataset ending({{"a", one, 1, 2.0}}, vocabulary, {.seq_length = 4});
  EXPECT_EQ(ending.size(), 2u);  // 2 epochs of 4 tokens: 7 have a next one
  EXPECT_NE(error_of([&] { ending.sample(2, sample); }).find("max_epochs"), std::string::npos);
  EXPECT_THROW(Dataset({}, vocabulary, {.seq_length = 4}), ConfigError);
}

TEST(Dataset, FractionsOfAnEpoch) {
  const auto source = distinct_documents(60, 1);
  const Vocabulary vocabulary{.size = 1000, .eos_id = eos};
  const Dataset whole({{"a", source, 1, 1.0}}, vocabulary, {.seq_length = 4});
  const Dataset half({{"a", source, 1, 0.5}}, vocabulary, {.seq_length = 4});
  EXPECT_NEAR(double(*half.size()), double(*whole.size()) / 2, 1);
}

}  // namespace
}  // namespace mixtape::test
