// A model's table of tokens as vectors for other uses: neighbours, and word2vec's text format.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "train/data/tokenizer/tokenizer.h"

namespace mixtape {

struct Neighbour {
  int32_t token = 0;
  double cosine = 0;
};

class Embeddings {
 public:
  // `path`: a run, a checkpoint or a Hugging Face directory. Rows that no token of the tokenizer has are left out.
  explicit Embeddings(const std::filesystem::path& path);

  const Tokenizer& tokenizer() const { return *tokenizer_; }
  int64_t count() const { return count_; }
  int64_t width() const { return width_; }

  // The tokens of a word: the one that it is in the middle of a text (" king"), the one that is spelled so ("Ġking"),
  // or else all that a text would have.
  std::vector<int32_t> tokens_of(const std::string& word) const;
  // The tokens whose vectors have the least angle to the mean of these tokens' vectors; these themselves are left out.
  std::vector<Neighbour> nearest(const std::vector<int32_t>& tokens, int64_t count) const;

  // word2vec's text format: a line "COUNT WIDTH", then a line for each token: its spelling and its numbers. White
  // space, control characters and backslashes in a spelling become \xHH, so that lines stay lines and columns columns.
  void write_word2vec(const std::filesystem::path& file) const;

 private:
  const float* row(int64_t token) const { return values_.data() + token * width_; }

  std::unique_ptr<Tokenizer> tokenizer_;
  int64_t count_ = 0, width_ = 0;
  std::vector<float> values_;
};

}  // namespace mixtape
