#include "train/bench/communication.h"

#include <algorithm>
#include <cstring>
#include <functional>

#include "core/base/clock.h"
#include "core/base/error.h"
#include "train/parallel/world.h"

namespace mixtape {
namespace {

double median_of(std::vector<double> values) {
  std::ranges::sort(values);
  const size_t n = values.size();
  return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

// Of the rank that took longest, after all have begun together..
double slowest(Communicator& ranks, const std::function<void()>& work) {
  ranks.barrier();
  const double start = now_seconds();
  work();
  std::vector<double> all(size_t(ranks.size()));
  all[size_t(ranks.rank())] = now_seconds() - start;
  const std::vector<int64_t> bytes(all.size(), int64_t(sizeof(double)));
  ranks.all_gather(std::as_writable_bytes(std::span(all)), bytes);
  return *std::ranges::max_element(all);
}

struct Buffers {
  std::vector<float> from, to;
  std::vector<int64_t> counts, part_bytes;
};

struct Calls {
  const char* name;
  Collective which;
  std::function<void()> through_communicator;
  std::function<void()> raw;
};

std::vector<Calls> calls_of(Communicator& ranks, Buffers& b) {
  RawMpi* const raw = raw_mpi();
  const auto whole = std::span(b.from), part = std::span(b.to).first(b.from.size() / size_t(ranks.size()));
  return {
      {"all-reduce", Collective::all_reduce, [&ranks, whole] { ranks.all_reduce(whole); },
       [=, &b] { raw(Collective::all_reduce, whole, std::span(b.to)); }},
      {"reduce-scatter", Collective::reduce_scatter,
       [&ranks, &b, whole, part] { ranks.reduce_scatter(whole, b.counts, part); },
       [=] { raw(Collective::reduce_scatter, whole, part); }},
      {"all-gather", Collective::all_gather,
       [&ranks, &b, whole] { ranks.all_gather(std::as_writable_bytes(whole), b.part_bytes); },
       [=] { raw(Collective::all_gather, part, whole); }},
  };
}

// Integers, of which every order of additions gives the same: what both ways deliver must be equal.
void expect_same_results(Communicator& ranks, Buffers& b) {
  const auto fill = [&] {
    for (size_t i = 0; i < b.from.size(); ++i) b.from[i] = float(i % 1000) + float(ranks.rank());
  };
  const size_t part = size_t(b.counts[0]), at = part * size_t(ranks.rank());
  RawMpi* const raw = raw_mpi();
  const auto expect = [&](const char* what, bool same) {
    if (!same) throw Error("bench comm: {} gives something else than MPI's own", what);
  };
  fill();
  raw(Collective::all_reduce, b.from, b.to);
  std::vector<float> sum(part);
  ranks.reduce_scatter(b.from, b.counts, sum);
  expect("reduce_scatter", std::equal(sum.begin(), sum.end(), b.to.begin() + int64_t(at)));
  ranks.all_reduce(std::span(b.from));
  expect("all_reduce", b.from == b.to);
  fill();
  raw(Collective::all_gather, std::span(b.from).subspan(at, part), b.to);
  ranks.all_gather(std::as_writable_bytes(std::span(b.from)), b.part_bytes);
  expect("all_gather", b.from == b.to);
  b.from.assign(b.from.size(), 0.f);  // zeros stay zeros, however often they are summed
}

CommunicationTiming time(Communicator& ranks, const Calls& calls, int64_t bytes, int samples) {
  std::vector<double> ours, raw;
  for (int i = -1; i < samples; ++i) {  // the first, which touches memory and opens connections, does not count
    const double a = slowest(ranks, calls.through_communicator), b = slowest(ranks, calls.raw);
    if (i < 0) continue;
    ours.push_back(a), raw.push_back(b);
  }
  const double share = double(ranks.size() - 1) / ranks.size() * (calls.which == Collective::all_reduce ? 2 : 1);
  return {calls.name, bytes, share * double(bytes), median_of(ours), median_of(raw)};
}

// The best of a few: nothing but what memory can do at this moment.
double copy_rate(Communicator& ranks) {
  constexpr size_t bytes = size_t(64) << 20;
  const std::vector<char> from(bytes, 1);
  std::vector<char> to(bytes);
  double best = 1e9;
  for (int i = 0; i < 5; ++i)
    best = std::min(best, slowest(ranks, [&] { std::memcpy(to.data(), from.data(), bytes); }));
  return 2 * double(bytes) / best;
}

}  // namespace

CommunicationBench bench_communication(Communicator& ranks, const std::vector<int64_t>& bytes, int samples) {
  CommunicationBench bench{.ranks = ranks.size(), .samples = samples, .copy = copy_rate(ranks)};
  for (const int64_t wanted : bytes) {
    const int64_t unit = int64_t(sizeof(float)) * ranks.size(), units = (wanted + unit - 1) / unit;
    Buffers b;
    b.from.resize(size_t(units * ranks.size()));
    b.to.assign(b.from.size(), 0.f);
    b.counts.assign(size_t(ranks.size()), units);
    b.part_bytes.assign(size_t(ranks.size()), units * int64_t(sizeof(float)));
    expect_same_results(ranks, b);
    for (const Calls& calls : calls_of(ranks, b)) bench.lines.push_back(time(ranks, calls, units * unit, samples));
  }
  return bench;
}

}  // namespace mixtape
