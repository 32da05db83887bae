#include "core/shards.h"

#include <algorithm>
#include <numeric>

#include "core/ops/optimizer.h"

namespace mixtape {
namespace {

// Where each rank's part of a bucket ends: each gets what it lacks of an equal share of all so far, to the nearest
// chunk.
std::vector<int64_t> ends_of_parts(const Run& bucket, const std::vector<int64_t>& so_far) {
  const double share = double(std::accumulate(so_far.begin(), so_far.end(), bucket.count)) / double(so_far.size());
  double lacking = 0, given = 0;
  for (const int64_t n : so_far) lacking += std::max(0.0, share - double(n));
  std::vector<int64_t> ends;
  int64_t end = bucket.begin;
  for (const int64_t n : so_far) {
    given += std::max(0.0, share - double(n));
    const double ideal = double(bucket.begin) + double(bucket.count) * given / lacking;
    end = std::clamp(int64_t(ideal / chunk_elements + 0.5) * chunk_elements, end, bucket.end());
    ends.push_back(end);
  }
  ends.back() = bucket.end();
  return ends;
}

}  // namespace

Shards::Shards(const std::vector<GradientBucket>& buckets, int64_t elements, Sharding sharding)
    : sharding_(sharding), parts_(size_t(sharding.ranks)), counts_(size_t(sharding.ranks)) {
  for (const GradientBucket& bucket : buckets) {
    const std::vector<int64_t> ends = ends_of_parts(bucket.run, counts_);
    std::vector<Part>& parts = of_buckets_.emplace_back();
    int64_t at = bucket.run.begin;
    for (int r = 0; r < sharding.ranks; ++r) {
      const int64_t stop = ends[size_t(r)];
      parts.push_back({{at, stop - at}, counts_[size_t(r)]});
      if (stop > at) parts_[size_t(r)].push_back(parts.back());
      counts_[size_t(r)] += stop - at;
      at = stop;
    }
  }
  if (sharding.ranks == 1) parts_[0] = {{{0, elements}, 0}};
}

std::vector<Shards::Part> Shards::parts(int rank, int64_t each) const {
  std::vector<Part> parts = parts_[size_t(rank)];
  for (Part& part : parts) part = {{part.run.begin / each, part.run.count / each}, part.at / each};
  return parts;
}

std::vector<int64_t> Shards::counts_of(int bucket) const {
  std::vector<int64_t> counts;
  for (const Part& part : of_buckets_[size_t(bucket)]) counts.push_back(part.run.count);
  return counts;
}

}  // namespace mixtape
