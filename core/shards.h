// Who has which part of the flat buffers of what learns, where ranks share them out.
//
// Every bucket is cut into a part for each rank, in the order of ranks, so that all take part in its exchange. A part
// is a run of chunks (ops/optimizer.h) of the flat buffer, or of what the bucket has of them: no sum and no block of
// codes is cut. Each rank gets what it lacks of an equal share of the buckets so far, to the nearest chunk. What a rank
// owns lies in its buffers part behind part.
#pragma once

#include <vector>

#include "core/gradient_buckets.h"

namespace mixtape {

// Which of several ranks this is, among those that share out flat buffers.
struct Sharding {
  int rank = 0, ranks = 1;
};

// Which of n rows, heads and so on each rank has: a run of them, as long as any other to the nearest one, the first
// rank's among the longest.
constexpr Run part_of(int64_t n, Sharding sharding) {
  const auto begin = [&](int64_t rank) { return (n * rank + sharding.ranks - 1) / sharding.ranks; };
  return {begin(sharding.rank), begin(sharding.rank + 1) - begin(sharding.rank)};
}

class Shards {
 public:
  // `elements`: of a flat buffer, which the buckets fill.
  Shards(const std::vector<GradientBucket>& buckets, int64_t elements, Sharding sharding);

  struct Part {
    Run run;         // of the flat buffer
    int64_t at = 0;  // where it begins in the owner's buffers
    Run place() const { return {at, run.count}; }
  };
  const Sharding& sharding() const { return sharding_; }
  // What a rank owns, in order; without empty parts. With one rank everything, as one. Of a buffer with one number for
  // each so many elements, which divide every part.
  std::vector<Part> parts(int rank, int64_t each = 1) const;
  const std::vector<Part>& own() const { return parts_[size_t(sharding_.rank)]; }
  int64_t count(int rank) const { return counts_[size_t(rank)]; }
  int64_t own_count() const { return count(sharding_.rank); }
  // What a rank owns of a bucket, which may be nothing, and how many elements each does.
  const Part& of_bucket(int bucket, int rank) const { return of_buckets_[size_t(bucket)][size_t(rank)]; }
  std::vector<int64_t> counts_of(int bucket) const;

 private:
  Sharding sharding_;
  std::vector<std::vector<Part>> of_buckets_;  // [bucket][rank]
  std::vector<std::vector<Part>> parts_;       // [rank]
  std::vector<int64_t> counts_;                // by rank
};

}  // namespace mixtape
