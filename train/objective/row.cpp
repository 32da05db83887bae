#include "train/objective/row.h"

namespace mixtape {

std::vector<TokenRange> documents_of_row(std::span<const int32_t> starts, int32_t length) {
  std::vector<TokenRange> documents;
  int32_t begin = 0;
  for (const int32_t start : starts) {
    if (start >= length) break;
    documents.push_back({begin, start - begin});
    begin = start;
  }
  if (length > begin) documents.push_back({begin, length - begin});
  return documents;
}

void append_segments(std::span<const TokenRange> documents, int32_t row_length, std::vector<int32_t>& positions,
                     std::vector<Segment>& segments) {
  const auto row = int32_t(positions.size());
  const auto append = [&](TokenRange range) {
    if (range.length == 0) return;
    const int32_t start = row + range.begin;
    segments.push_back({.q_start = start, .q_len = range.length, .k_start = start, .k_len = range.length});
    for (int32_t i = 0; i < range.length; ++i) positions.push_back(i);
  };
  for (const TokenRange& document : documents) append(document);
  const int32_t used = documents.empty() ? 0 : documents.back().end();
  append({used, row_length - used});
}

void append_padded(std::span<const int32_t> tokens, int32_t row_length, int32_t padding, std::vector<int32_t>& out) {
  const size_t row = out.size();
  out.insert(out.end(), tokens.begin(), tokens.end());
  out.resize(row + size_t(row_length), padding);
}

}  // namespace mixtape
