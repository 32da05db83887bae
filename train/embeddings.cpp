#include "train/embeddings.h"

#include <algorithm>
#include <cmath>

#include "train/checkpoint/huggingface/model.h"
#include "train/data/output_file.h"
#include "train/resume.h"

namespace mixtape {
namespace {

std::string escaped(const std::string& spelling) {
  std::string text;
  for (const char c : spelling) {
    const auto byte = uint8_t(c);
    if (byte <= ' ' || byte == 0x7f || c == '\\')
      text += fmt::format("\\x{:02x}", byte);
    else
      text += c;
  }
  return text;
}

double dot(const float* a, const double* b, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += double(a[i]) * b[i];
  return sum;
}

double length(const float* a, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += double(a[i]) * a[i];
  return std::sqrt(sum);
}

}  // namespace

Embeddings::Embeddings(const std::filesystem::path& path) {
  const std::filesystem::path directory = find_model(path);
  const HfModel model = import_huggingface(directory);
  if (model.tokenizer_files.empty()) throw DataError("{}: no tokenizer beside the model", directory.string());
  tokenizer_ = load_tokenizer(directory);
  width_ = model.spec.d_model;
  values_.resize(size_t(model.spec.vocab_size * width_));
  model.read("embedding.token", values_);
  count_ = std::min<int64_t>(model.spec.vocab_size, tokenizer_->vocab_size());
}

std::vector<int32_t> Embeddings::tokens_of(const std::string& word) const {
  std::vector<int32_t> tokens = tokenizer_->encode(" " + word);
  if (tokens.size() != 1)
    if (const auto spelled = tokenizer_->token_id(word)) tokens = {*spelled};
  if (tokens.empty()) throw DataError("inspect: '{}' has no tokens", word);
  for (const int32_t token : tokens)
    if (token >= count_) throw DataError("inspect: token {} of '{}' has no vector in the model", token, word);
  return tokens;
}

std::vector<Neighbour> Embeddings::nearest(const std::vector<int32_t>& tokens, int64_t count) const {
  std::vector<double> query(static_cast<size_t>(width_));
  for (const int32_t token : tokens)
    for (int64_t i = 0; i < width_; ++i) query[size_t(i)] += row(token)[i];
  double squares = 0;
  for (const double x : query) squares += x * x;
  const double query_length = std::sqrt(squares);

  std::vector<Neighbour> all;
  for (int32_t token = 0; token < int32_t(count_); ++token) {
    if (std::ranges::find(tokens, token) != tokens.end()) continue;
    const double lengths = length(row(token), width_) * query_length;
    all.push_back({token, lengths > 0 ? dot(row(token), query.data(), width_) / lengths : 0});
  }
  count = std::min(count, int64_t(all.size()));
  std::partial_sort(all.begin(), all.begin() + count, all.end(), [](const Neighbour& a, const Neighbour& b) {
    return a.cosine != b.cosine ? a.cosine > b.cosine : a.token < b.token;
  });
  all.resize(size_t(count));
  return all;
}

void Embeddings::write_word2vec(const std::filesystem::path& file) const {
  OutputFile out(file);
  fmt::memory_buffer lines;
  const auto flush = [&] {
    out.write({reinterpret_cast<const unsigned char*>(lines.data()), lines.size()});
    lines.clear();
  };
  fmt::format_to(std::back_inserter(lines), "{} {}\n", count_, width_);
  for (int32_t token = 0; token < int32_t(count_); ++token) {
    const std::string spelling = escaped(tokenizer_->token_text(token));
    // A line without a spelling would lose a column.
    fmt::format_to(std::back_inserter(lines), "{}", spelling.empty() ? fmt::format("\\token{}", token) : spelling);
    for (int64_t i = 0; i < width_; ++i) fmt::format_to(std::back_inserter(lines), " {}", row(token)[i]);
    lines.push_back('\n');
    if (lines.size() > (1 << 20)) flush();
  }
  flush();
  out.commit();
}

}  // namespace mixtape
