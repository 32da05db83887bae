#include "core/communicator.h"

#include <algorithm>
#include <cstdlib>

#include "core/base/error.h"

namespace mixtape {
namespace {

class SingleProcess final : public Communicator {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  void all_reduce(std::span<float>) override {}
  void all_reduce(std::span<int64_t>) override {}
  void all_to_all(std::span<const float> from, std::span<const int64_t>, std::span<float> to) override {
    std::ranges::copy(from, to.begin());
  }
  void reduce_scatter(std::span<const float> from, std::span<const int64_t>, std::span<float> to) override {
    std::ranges::copy(from, to.begin());
  }
  void all_gather(std::span<std::byte>, std::span<const int64_t>) override {}
  void broadcast(std::span<std::byte>, int) override {}
  void barrier() override {}
  std::unique_ptr<Communicator> split(int, int) override { return std::make_unique<SingleProcess>(); }
  void abort(int exit_code) override { std::_Exit(exit_code); }
};

class PlannedRank final : public Communicator {
 public:
  explicit PlannedRank(int size) : size_(size) {}
  int rank() const override { return 0; }
  int size() const override { return size_; }
  void all_reduce(std::span<float>) override { refuse(); }
  void all_reduce(std::span<int64_t>) override { refuse(); }
  void all_to_all(std::span<const float>, std::span<const int64_t>, std::span<float>) override { refuse(); }
  void reduce_scatter(std::span<const float>, std::span<const int64_t>, std::span<float>) override { refuse(); }
  void all_gather(std::span<std::byte>, std::span<const int64_t>) override { refuse(); }
  void broadcast(std::span<std::byte>, int) override { refuse(); }
  void barrier() override { refuse(); }
  std::unique_ptr<Communicator> split(int, int size) override { return std::make_unique<PlannedRank>(size); }
  void abort(int) override { refuse(); }

 private:
  [[noreturn]] static void refuse() { throw Error("communicator: a plan has no other ranks to talk to"); }
  int size_;
};

}  // namespace

Communicator& single_process() {
  static SingleProcess process;
  return process;
}

std::unique_ptr<Communicator> planned_rank(int size) { return std::make_unique<PlannedRank>(size); }

}  // namespace mixtape
