// Ranks as threads of one process: what a step exchanges, without MPI.
#pragma once

#include <barrier>
#include <cstring>
#include <exception>
#include <functional>
#include <memory>
#include <numeric>
#include <thread>
#include <vector>

#include "core/base/error.h"
#include "core/communicator.h"

namespace mixtape {

// Sums floats in the order of ranks.
class ThreadRanks {
 public:
  explicit ThreadRanks(int size) : barrier_(size), slots_(size_t(size)) {}

  class Rank final : public Communicator {
   public:
    Rank(ThreadRanks& all, int rank) : all_(all), rank_(rank) {}
    // A group's member.
    Rank(std::shared_ptr<ThreadRanks> group, int rank) : group_(std::move(group)), all_(*group_), rank_(rank) {}
    int rank() const override { return rank_; }
    int size() const override { return int(all_.slots_.size()); }
    void all_reduce(std::span<float> values) override { sum(values); }
    void all_reduce(std::span<int64_t> values) override { sum(values); }
    void all_to_all(std::span<const float> from, std::span<const int64_t> counts, std::span<float> to) override {
      const auto part = size_t(counts[size_t(rank_)]);
      const int64_t at = std::accumulate(counts.begin(), counts.begin() + rank_, int64_t(0));
      together(from.data(), [&](int i, const void* other) {
        std::memcpy(to.data() + size_t(i) * part, static_cast<const float*>(other) + at, part * sizeof(float));
      });
    }
    void reduce_scatter(std::span<const float> from, std::span<const int64_t> counts, std::span<float> to) override {
      const auto part = size_t(counts[size_t(rank_)]);
      const int64_t at = std::accumulate(counts.begin(), counts.begin() + rank_, int64_t(0));
      together(from.data(), [&](int i, const void* other) {
        const float* v = static_cast<const float*>(other) + at;
        for (size_t k = 0; k < part; ++k) to[k] = i == 0 ? v[k] : to[k] + v[k];
      });
    }
    void all_gather(std::span<std::byte> all, std::span<const int64_t> bytes) override {
      std::vector<int64_t> offsets(bytes.size());
      for (size_t i = 1; i < bytes.size(); ++i) offsets[i] = offsets[i - 1] + bytes[i - 1];
      together(all.data(), [&](int i, const void* other) {
        if (i != rank_)
          std::memcpy(all.data() + offsets[size_t(i)], static_cast<const std::byte*>(other) + offsets[size_t(i)],
                      size_t(bytes[size_t(i)]));
      });
    }
    void broadcast(std::span<std::byte> data, int root) override {
      together(data.data(), [&](int i, const void* other) {
        if (i == root && i != rank_) std::memcpy(data.data(), other, data.size());
      });
    }
    void barrier() override { all_.barrier_.arrive_and_wait(); }
    // The first of a group brings its meeting place.
    std::unique_ptr<Communicator> split(int group, int size) override {
      struct Wish {
        int group;
        std::shared_ptr<ThreadRanks> place;
      };
      const Wish mine{group, std::make_shared<ThreadRanks>(size)};
      std::shared_ptr<ThreadRanks> place;
      int number = 0;
      together(&mine, [&](int i, const void* other) {
        const Wish& wish = *static_cast<const Wish*>(other);
        if (wish.group != group) return;
        if (!place) place = wish.place;
        number += i < rank_;
      });
      return std::make_unique<Rank>(place, number);
    }
    void abort(int exit_code) override { throw Error("rank {} aborts with {}", rank_, exit_code); }

   private:
    // visit(i, rank i's memory), for all i in order, while nobody changes what others read.
    template <class Visit>
    void together(const void* mine, Visit&& visit) {
      all_.slots_[size_t(rank_)] = mine;
      barrier();
      for (int i = 0; i < size(); ++i) visit(i, all_.slots_[size_t(i)]);
      barrier();
    }
    template <class T>
    void sum(std::span<T> values) {
      std::vector<T> total(values.size());
      together(values.data(), [&](int i, const void* other) {
        const T* v = static_cast<const T*>(other);
        for (size_t k = 0; k < total.size(); ++k) total[k] = i == 0 ? v[k] : total[k] + v[k];
      });
      std::memcpy(values.data(), total.data(), values.size_bytes());
      barrier();
    }
    std::shared_ptr<ThreadRanks> group_;
    ThreadRanks& all_;
    int rank_;
  };

  // body(rank) in a thread each; rethrows the first error. (An error of one rank alone would leave the others waiting.)
  static void run(int size, const std::function<void(Communicator&)>& body) {
    ThreadRanks all(size);
    std::vector<std::exception_ptr> errors(static_cast<size_t>(size));
    std::vector<std::thread> threads;
    for (int r = 0; r < size; ++r)
      threads.emplace_back([&, r] {
        try {
          Rank rank(all, r);
          body(rank);
        } catch (...) {
          errors[size_t(r)] = std::current_exception();
        }
      });
    for (std::thread& t : threads) t.join();
    for (const std::exception_ptr& e : errors)
      if (e) std::rethrow_exception(e);
  }

 private:
  std::barrier<> barrier_;
  std::vector<const void*> slots_;
};

}  // namespace mixtape
