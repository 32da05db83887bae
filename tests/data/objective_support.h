// What the tests of objectives share: golden cases, a vocabulary, data without end.
#pragma once

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

#include "tests/data/support.h"
#include "train/objective/objective.h"
#include "train/objective/token_table.h"

namespace mixtape::test {

using Tokens = std::vector<int32_t>;

// A value, as `parse(in).at(part)` in the head of a loop would end before the loop.
inline nlohmann::json golden_objective(const std::string& name, const std::string& part) {
  std::ifstream in(std::string(MIXTAPE_GOLDEN) + "/objectives/" + name + ".json");
  return nlohmann::json::parse(in).at(part);
}

// Ids 0 <s>, 1 <pad>, 2 </s>, 3 [MASK]; 4 a full stop; the others words of `word_length` tokens, each of which begins
// at an id that word_length divides.
inline TokenTable plain_table(int32_t vocab_size, int32_t word_length = 1) {
  TokenTable table{.vocab_size = vocab_size};
  table.ids.cls = 0, table.ids.pad = 1, table.ids.sep = table.ids.eos = 2, table.ids.mask = 3;
  for (int32_t id = 0; id < vocab_size; ++id) {
    table.is_special.push_back(id < 4);
    table.begins_word.push_back(id <= 4 || id % word_length == 0);
    table.is_full_stop.push_back(id == 4);
    if (id >= 4) table.ordinary.push_back(id);
  }
  return table;
}

// Documents of 1 to `longest` consecutive ids from 5 on, so that a token tells what stands beside it.
inline std::unique_ptr<Dataset> objective_data(int seq_length, Framing framing, int longest = 40,
                                               int32_t vocab_size = 2000) {
  std::vector<Tokens> documents;
  for (int d = 0; d < 200; ++d) {
    documents.emplace_back(size_t(1 + d * 17 % longest));
    std::iota(documents.back().begin(), documents.back().end(), 5 + d * 7 % (vocab_size - 5 - longest));
  }
  return std::make_unique<Dataset>(std::vector<DatasetSource>{{"a", std::make_shared<MemorySource>(documents)}},
                                   Vocabulary{.size = vocab_size, .eos_id = 2, .cls_id = 0, .sep_id = 2},
                                   DatasetOptions{.seq_length = seq_length, .framing = framing, .seed = 3});
}

// The mean of `count` draws with this standard deviation lies this near to what is expected, but for one seed in 400.
inline double three_sigma(double deviation, double count) { return 3 * deviation / std::sqrt(count); }

// Segments of self-attention tile the rows, and positions count from 0 in each.
inline void expect_sound_segments(const std::vector<Segment>& segments, const Tokens& positions, int32_t row_length) {
  int32_t next = 0;
  for (const Segment& segment : segments) {
    ASSERT_EQ(segment.q_start, next);
    ASSERT_EQ(segment.k_start, next);
    ASSERT_GT(segment.q_len, 0);
    ASSERT_EQ(segment.q_len, segment.k_len);
    ASSERT_EQ(next / row_length, (next + segment.q_len - 1) / row_length);
    for (int32_t i = 0; i < segment.q_len; ++i) ASSERT_EQ(positions[size_t(next + i)], i);
    next += segment.q_len;
  }
  ASSERT_EQ(size_t(next), positions.size());
}

// A batch is a function of the sample indices alone: not of the other samples in it, nor of what was made before.
inline void expect_pure(const Objective& objective, const std::vector<std::vector<int32_t> Batch::*>& arrays) {
  Batch together, alone;
  objective.fill(std::vector<uint64_t>{7, 3}, alone);
  objective.fill(std::vector<uint64_t>{3}, alone);
  objective.fill(std::vector<uint64_t>{9, 3}, together);
  for (const auto array : arrays) {
    const Tokens &one = alone.*array, &two = together.*array;
    ASSERT_EQ(two.size(), 2 * one.size());
    EXPECT_TRUE(std::equal(one.begin(), one.end(), two.begin() + long(one.size())));
    EXPECT_FALSE(std::equal(one.begin(), one.end(), two.begin()));
  }
}

}  // namespace mixtape::test
