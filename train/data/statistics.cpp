#include "train/data/statistics.h"

#include <algorithm>
#include <bit>
#include <numeric>

namespace mixtape {
namespace {

constexpr int32_t most_ids = 1 << 24;  // no tokenizer has more, and a damaged file must not take all memory

void count_tokens(std::span<const int32_t> tokens, bool grow, TokenStatistics& out) {
  for (const int32_t token : tokens) {
    if (grow && token >= 0 && token < most_ids && size_t(token) >= out.counts.size())
      out.counts.resize(size_t(token) + 1);
    if (token < 0 || size_t(token) >= out.counts.size()) {
      ++out.outside_vocabulary;
    } else {
      ++out.counts[size_t(token)];
    }
  }
}

uint64_t median_of(const TokenStatistics& statistics) {
  uint64_t before = 0;
  for (size_t k = 0; k < statistics.lengths.size(); ++k) {
    before += statistics.lengths[k];
    if (2 * before >= statistics.documents - statistics.empty_documents) return uint64_t(1) << k;
  }
  return 0;
}

}  // namespace

uint64_t TokenStatistics::distinct() const {
  return uint64_t(std::count_if(counts.begin(), counts.end(), [](uint64_t count) { return count > 0; }));
}

std::vector<std::pair<int32_t, uint64_t>> TokenStatistics::most_frequent(size_t n) const {
  std::vector<int32_t> ids(counts.size());
  std::iota(ids.begin(), ids.end(), 0);
  n = std::min(n, size_t(distinct()));
  std::partial_sort(ids.begin(), ids.begin() + std::ptrdiff_t(n), ids.end(), [&](int32_t a, int32_t b) {
    return counts[size_t(a)] != counts[size_t(b)] ? counts[size_t(a)] > counts[size_t(b)] : a < b;
  });
  std::vector<std::pair<int32_t, uint64_t>> most;
  for (size_t i = 0; i < n; ++i) most.emplace_back(ids[i], counts[size_t(ids[i])]);
  return most;
}

TokenStatistics measure(const TokenSource& source, int32_t vocab_size, const std::function<void(uint64_t)>& progress) {
  TokenStatistics out;
  out.documents = source.num_documents();
  out.counts.resize(size_t(std::max(vocab_size, 0)));
  std::vector<int32_t> chunk;
  for (uint64_t d = 0; d < out.documents; ++d) {
    const DocumentSpan document = source.document(d);
    out.tokens += document.length;
    out.shortest = d == 0 ? document.length : std::min(out.shortest, document.length);
    out.longest = std::max(out.longest, document.length);
    const auto bin = size_t(std::bit_width(document.length));
    if (bin == 0) {
      ++out.empty_documents;
    } else {
      if (out.lengths.size() < bin) out.lengths.resize(bin);
      ++out.lengths[bin - 1];
    }
    for (uint64_t done = 0; done < document.length; done += chunk.size()) {
      chunk.resize(std::min<uint64_t>(document.length - done, 64 * 1024));
      source.read(document.first + done, chunk);
      count_tokens(chunk, vocab_size <= 0, out);
    }
    if (progress && d % 1024 == 0) progress(d);
  }
  out.median = median_of(out);
  return out;
}

}  // namespace mixtape
