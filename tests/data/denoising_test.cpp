#include "train/objective/denoising.h"

#include <map>

#include "tests/data/objective_support.h"

namespace mixtape::test {
namespace {

TEST(Denoising, GoldenPoissonTables) {
  const nlohmann::json tables = golden_objective("bart", "poisson");
  for (const auto& [lambda, table] : tables.items()) {
    const auto expected = table.get<std::vector<double>>();
    const auto actual = poisson_table(std::stod(lambda));
    ASSERT_EQ(actual.size(), expected.size());
    for (size_t k = 0; k < expected.size(); ++k) EXPECT_NEAR(actual[k], expected[k], 1e-15);
  }
}

TEST(Denoising, GoldenCases) {
  for (const auto& c : golden_objective("bart", "cases")) {
    const auto clean = c.at("clean").get<Tokens>();
    TokenTable table;
    table.is_full_stop.assign(50265, 0);
    table.is_full_stop[c.at("full_stop").get<size_t>()] = 1;
    std::vector<TokenRange> sentences;
    for (const auto& range : c.at("sentence_ranges"))
      sentences.push_back({range[0].get<int32_t>(), range[1].get<int32_t>() - range[0].get<int32_t>()});
    EXPECT_EQ(sentences_of(clean, table), sentences);
    const Tokens moved = permuted(clean, sentences, c.at("sentence_order").get<Tokens>());
    EXPECT_EQ(moved, c.at("permuted").get<Tokens>());
    std::vector<Infill> infills;
    for (const auto& span : c.at("spans"))
      infills.push_back(
          {{span[0], span[1]}, span[2].is_null() ? c.at("mask_id").get<int32_t>() : span[2].get<int32_t>()});
    EXPECT_TRUE(c.at("insertions").empty());
    EXPECT_EQ(infilled(moved, infills), c.at("inputs").get<Tokens>());
  }
}

TEST(Denoising, SpansMayMeetOverlapAndRunToTheEnd) {
  const Tokens document{0, 10, 11, 12, 13, 14, 15, 2};
  EXPECT_EQ(infilled(document, std::vector<Infill>{{{2, 2}, 3}, {{4, 1}, 3}}), (Tokens{0, 10, 3, 3, 14, 15, 2}));
  EXPECT_EQ(infilled(document, std::vector<Infill>{{{3, 2}, 3}, {{2, 3}, 4}}), (Tokens{0, 10, 4, 14, 15, 2}));
  EXPECT_EQ(infilled(document, std::vector<Infill>{{{5, 2}, 3}}), (Tokens{0, 10, 11, 12, 13, 3, 2}));
}

TEST(Denoising, InsertionsStandAtTheirPlacesInTheResult) {
  EXPECT_EQ(with_insertions(Tokens{0, 10, 11, 2}, Tokens{1, 3, 4}, Tokens{7, 8, 9}), (Tokens{0, 7, 10, 8, 9, 11, 2}));
  EXPECT_EQ(with_insertions(Tokens{0, 2}, Tokens{}, Tokens{}), (Tokens{0, 2}));
}

TEST(Denoising, BudgetsAreExactAndLengthsArePoisson) {
  const auto table = poisson_table(3.5);
  Draws draws(1, 1);
  for (int32_t budget = 0; budget < 30; ++budget) {
    const Tokens lengths = span_budget(budget, table, draws);
    EXPECT_EQ(std::accumulate(lengths.begin(), lengths.end(), 0), budget);
  }
  const Tokens lengths = span_budget(200000, table, draws);
  double sum = 0, squares = 0, zeros = 0;
  for (const int32_t n : lengths) sum += n, squares += n * n, zeros += n == 0;
  const auto count = double(lengths.size());
  EXPECT_NEAR(sum / count, 3.5, three_sigma(std::sqrt(3.5), count));
  EXPECT_NEAR(squares / count - 3.5 * 3.5, 3.5, three_sigma(28, count));
  EXPECT_NEAR(zeros / count, std::exp(-3.5), three_sigma(0.17, count));
}

constexpr int32_t bart_vocab_size = 2000;
const ObjectiveConfig silent{.infill_rate = 0, .permute_sentences = 0};

// Twenty sentences of ten words of two tokens each and a full stop.
Tokens long_document() {
  Tokens document{0};
  for (int32_t sentence = 0; sentence < 20; ++sentence) {
    for (int32_t t = 0; t < 20; ++t) document.push_back(100 + 20 * sentence + t);
    document.push_back(4);
  }
  document.push_back(2);
  return document;
}

Tokens noised(const ObjectiveConfig& config, uint64_t sample, const Tokens& document, int32_t room = 100000) {
  Draws draws(1, sample);
  return corrupted(document, config, plain_table(bart_vocab_size, 2), poisson_table(config.poisson_lambda), room,
                   draws);
}

TEST(Denoising, NothingHappensWithoutNoise) { EXPECT_EQ(noised(silent, 1, long_document()), long_document()); }

TEST(Denoising, SentencesArePermuted) {
  ObjectiveConfig config = silent;
  const Tokens document = long_document();
  for (const double share : {0.25, 1.0}) {
    config.permute_sentences = share;
    double stayed = 0;
    constexpr int repeats = 400;
    for (uint64_t i = 0; i < repeats; ++i) {
      const Tokens out = noised(config, i, document);
      ASSERT_EQ(out.size(), document.size());
      EXPECT_EQ(out.front(), 0);
      EXPECT_EQ(out.back(), 2);
      int moved = 0;
      for (size_t s = 0; s < 20; ++s) {
        const size_t at = 1 + 21 * s;
        EXPECT_EQ((out[at] - 100) % 20, 0);
        for (size_t t = 1; t < 20; ++t) EXPECT_EQ(out[at + t], out[at] + int32_t(t));
        EXPECT_EQ(out[at + 20], 4);
        moved += out[at] != document[at];
      }
      EXPECT_LE(moved, 20 * share);
      stayed += 20 * share - moved;
    }
    // A random order leaves one thing in its place on average, with variance 1.
    EXPECT_NEAR(stayed / repeats, 1, three_sigma(1, repeats));
  }
}

// With masks only: what is gone was in spans, each of which shows one mask.
TEST(Denoising, InfillingReplacesWholeWordsWithinTheBudget) {
  ObjectiveConfig config = silent;
  config.infill_rate = 0.3;
  config.random_mask_share = 0;
  Tokens document = long_document();
  std::erase(document, 4);  // so that no token occurs twice
  const TokenTable table = plain_table(bart_vocab_size, 2);
  const auto words = std::count_if(document.begin() + 1, document.end() - 1,
                                   [&](int32_t token) { return table.begins_word[size_t(token)] != 0; });
  double gone = 0;
  constexpr int repeats = 300;
  for (uint64_t i = 0; i < repeats; ++i) {
    const Tokens out = noised(config, i, document);
    size_t next = 0;  // in the document
    int64_t masks = 0, words_gone = 0;
    bool open = false;
    for (const int32_t token : out) {
      if (token == 3) {
        ++masks;
        open = true;
        continue;
      }
      const size_t before = next;
      while (next < document.size() && document[next] != token) {
        ASSERT_TRUE(open) << "a token is gone without a mask";
        words_gone += table.begins_word[size_t(document[next])];
        ++next;
      }
      ASSERT_LT(next, document.size());
      if (next > before) {
        EXPECT_TRUE(table.begins_word[size_t(document[before])] || before == 0);
        EXPECT_TRUE(table.begins_word[size_t(token)]) << "a word is cut";
      }
      ++next;
      open = false;
    }
    EXPECT_LE(words_gone, int64_t(std::ceil(double(words) * 0.3)));
    EXPECT_LE(int64_t(out.size()), int64_t(document.size()) + masks);
    gone += double(words_gone) / double(words);
  }
  // Spans overlap at random, so some of the budget is lost: about a seventh.
  EXPECT_NEAR(gone / repeats, 0.3, 0.06);
  EXPECT_LT(gone / repeats, 0.3);
}

TEST(Denoising, OneMaskInTenIsARandomToken) {
  ObjectiveConfig config = silent;
  config.infill_rate = 0.3;
  config.poisson_lambda = 6;  // hardly any of length 0
  double masks = 0, randoms = 0;
  for (uint64_t i = 0; i < 300; ++i)
    for (const int32_t token : noised(config, i, long_document())) {
      masks += token == 3;
      randoms += token >= 500 || (token >= 5 && token < 100);
    }
  const double share = randoms / (masks + randoms);
  const double seen = 0.1 * 1595.0 / 1995.0;  // of the random tokens, some are of the document's own
  EXPECT_NEAR(share, seen, three_sigma(0.3, masks + randoms) + 0.003);
}

TEST(Denoising, DeletionInsertionAndRotation) {
  const Tokens document = long_document();
  const auto inner = int64_t(document.size()) - 2;
  ObjectiveConfig config = silent;
  config.delete_rate = 0.1;
  EXPECT_EQ(int64_t(noised(config, 1, document).size()), 2 + inner - 42);

  config = silent;
  config.insert_rate = 0.1;
  config.random_mask_share = 0;
  const Tokens inserted = noised(config, 1, document);
  EXPECT_EQ(std::count(inserted.begin(), inserted.end(), 3), 43);
  Tokens without = inserted;
  std::erase(without, 3);
  EXPECT_EQ(without, document);
  EXPECT_EQ(noised(config, 1, document, int32_t(document.size()) + 5).size(), document.size() + 5);
  double place = 0;
  for (uint64_t i = 0; i < 300; ++i) {
    const Tokens out = noised(config, i, document);
    place += double(std::find(out.begin(), out.end(), 3) - out.begin());
  }
  EXPECT_NEAR(place / 300, 464.0 / 44, three_sigma(10, 300));  // the first of 43 among 463

  config = silent;
  config.rotate_rate = 1;
  std::map<int32_t, int> first;
  for (uint64_t i = 0; i < 500; ++i) {
    Tokens out = noised(config, i, document);
    EXPECT_EQ(out.front(), 0);
    EXPECT_EQ(out.back(), 2);
    ++first[out[1]];
    const Tokens text(document.begin() + 1, document.end() - 1);
    Tokens twice = text;
    twice.insert(twice.end(), text.begin(), text.end());
    EXPECT_NE(std::search(twice.begin(), twice.end(), out.begin() + 1, out.end() - 1), twice.end());
  }
  EXPECT_GT(first.size(), 200u);
  config.rotate_rate = 0.3;
  int rotated = 0;
  for (uint64_t i = 0; i < 500; ++i) rotated += noised(config, i, document) != document;
  EXPECT_NEAR(rotated / 500.0, 0.3, three_sigma(0.46, 500));
}

Denoising denoising_objective(int32_t length, bool document_mask, const ObjectiveConfig& config = {},
                              uint64_t seed = 1) {
  return Denoising(objective_data(length, Framing::enclosed), config, plain_table(bart_vocab_size, 2), document_mask,
                   seed);
}

TEST(Denoising, BatchesAreSound) {
  ObjectiveConfig many_insertions;
  many_insertions.poisson_lambda = 0.1;
  many_insertions.insert_rate = 1;
  for (const auto& config : {ObjectiveConfig{}, many_insertions}) {
    for (const bool document_mask : {true, false}) {
      constexpr int32_t length = 96;
      const Denoising bart = denoising_objective(length, document_mask, config);
      for (uint64_t index = 0; index < 60; index += 2) {
        Batch batch;
        bart.fill(std::vector{index, index + 1}, batch);
        expect_sound_segments(batch.segments, batch.positions, length);
        expect_sound_segments(batch.decoder.segments, batch.decoder.positions, length);
        ASSERT_EQ(batch.tokens.size(), 2u * length);
        ASSERT_EQ(batch.decoder.tokens.size(), 2u * length);
        EXPECT_EQ(batch.n_targets, 2 * length);
        for (size_t r = 0; r < 2; ++r) {
          Sample sample;
          bart.data().sample(index + r, sample);
          const Tokens targets(batch.targets.begin() + long(r * length),
                               batch.targets.begin() + long((r + 1) * length));
          EXPECT_EQ(targets, sample.tokens);
          EXPECT_EQ(batch.decoder.tokens[r * length], 2);
          for (size_t t = 1; t < length; ++t) EXPECT_EQ(batch.decoder.tokens[r * length + t], targets[t - 1]);
        }
        // Each document's decoder reads that document's corrupted text, whole: it begins with <s> and ends with </s>.
        int64_t keys = 0, queries = 0;
        for (const Segment& cross : batch.decoder.cross_segments) {
          keys += cross.k_len;
          queries += cross.q_len;
          EXPECT_EQ(batch.tokens[size_t(cross.k_start)], 0);
          EXPECT_EQ(batch.tokens[size_t(cross.k_start + cross.k_len) - 1], 2);
          EXPECT_EQ(batch.decoder.tokens[size_t(cross.q_start)], 2);
          EXPECT_EQ(cross.q_start / length, cross.k_start / length);
        }
        EXPECT_EQ(keys, batch.n_tokens);
        EXPECT_EQ(queries, 2 * length);
        EXPECT_EQ(batch.decoder.cross_segments.size(), document_mask ? batch.decoder.segments.size() : 2u);
      }
    }
  }
}

TEST(Denoising, IsAFunctionOfSeedAndSample) {
  expect_pure(denoising_objective(96, true), {&Batch::tokens, &Batch::targets});
  Batch one, other;
  denoising_objective(96, true, {}, 1).fill(std::vector<uint64_t>{5}, one);
  denoising_objective(96, true, {}, 2).fill(std::vector<uint64_t>{5}, other);
  EXPECT_NE(one.tokens, other.tokens);
  EXPECT_EQ(one.targets, other.targets);
}

TEST(Denoising, NeedsAMaskToken) {
  TokenTable table = plain_table(bart_vocab_size);
  table.ids.mask.reset();
  EXPECT_NE(error_of([&] { Denoising(objective_data(16, Framing::enclosed), {}, table, true, 1); }).find("mask_token"),
            std::string::npos);
}

}  // namespace
}  // namespace mixtape::test
