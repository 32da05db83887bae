// Communicator over MPI.
//
// Collectives are started and then polled, which lets a rank that waits long give its core to the others: MPI's own
// blocking calls spin. Polling also keeps the order of a collective's parts MPI's own, and so the bits.
#include "core/communicator.h"

#include <mpi.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <thread>
#include <vector>

#include "core/base/clock.h"
#include "core/base/error.h"
#include "train/parallel/mpi/module.h"

namespace mixtape {
namespace {

constexpr int64_t most_bytes = 1 << 30;  // of one call: MPI counts with int

void complete(MPI_Request request) {
  const Clock::time_point start = Clock::now();
  for (int done = 0;;) {
    MPI_Test(&request, &done, MPI_STATUS_IGNORE);
    if (done) return;
    // A transfer of a bucket needs every turn it can get; a rank that validates takes seconds.
    if (seconds_since(start) < 0.02) {
      std::this_thread::yield();
    } else {
      std::this_thread::sleep_for(std::chrono::microseconds(200));
    }
  }
}

template <class T>
void sum(std::span<T> values, MPI_Datatype type, MPI_Comm ranks) {
  constexpr size_t most = size_t(most_bytes) / sizeof(T);
  for (size_t at = 0; at < values.size(); at += most) {
    MPI_Request request;
    MPI_Iallreduce(MPI_IN_PLACE, values.data() + at, int(std::min(most, values.size() - at)), type, MPI_SUM, ranks,
                   &request);
    complete(request);
  }
}

class MpiCommunicator final : public Communicator {
 public:
  MpiCommunicator() {
    int provided = 0;
    MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &provided);
    MPI_Type_contiguous(int(block), MPI_BYTE, &block_type_);
    MPI_Type_commit(&block_type_);
    ask_for_place();
    ask_for_machine();
  }
  // Some of another's ranks, for which MPI has memory until it ends.
  MpiCommunicator(const MpiCommunicator& all, int group) : world_(false), block_type_(all.block_type_) {
    MPI_Comm_split(all.ranks_, group, all.rank_, &ranks_);
    ask_for_place();
  }
  ~MpiCommunicator() override {
    if (!world_) return;
    MPI_Type_free(&block_type_);
    MPI_Finalize();
  }
  int rank() const override { return rank_; }
  int size() const override { return size_; }
  int first_of_machine() const override { return first_of_machine_; }

  void all_reduce(std::span<float> values) override { sum(values, MPI_FLOAT, ranks_); }
  void all_reduce(std::span<int64_t> values) override { sum(values, MPI_INT64_T, ranks_); }

  void all_to_all(std::span<const float> from, std::span<const int64_t> counts, std::span<float> to) override {
    const int here = take_counts("all_to_all", from.size(), counts, to.size() / size_t(size_));
    std::vector<int> arriving(size_t(size_), here), places;
    for (int r = 0; r < size_; ++r) places.push_back(r * here);
    MPI_Request request;
    MPI_Ialltoallv(from.data(), counts_.data(), offsets_.data(), MPI_FLOAT, to.data(), arriving.data(), places.data(),
                   MPI_FLOAT, ranks_, &request);
    complete(request);
  }

  void reduce_scatter(std::span<const float> from, std::span<const int64_t> counts, std::span<float> to) override {
    take_counts("reduce_scatter", from.size(), counts, to.size());
    MPI_Request request;
    MPI_Ireduce_scatter(from.data(), to.data(), counts_.data(), MPI_FLOAT, MPI_SUM, ranks_, &request);
    complete(request);
  }

  // Flat buffers are whole blocks long, which lets them be larger than an int counts.
  void all_gather(std::span<std::byte> all, std::span<const int64_t> bytes) override {
    bool in_blocks = true;
    for (const int64_t n : bytes) in_blocks = in_blocks && n % block == 0;
    const int64_t unit = in_blocks ? block : 1;
    int64_t offset = 0;
    counts_.clear(), offsets_.clear();
    for (const int64_t n : bytes) {
      counts_.push_back(int(n / unit));
      offsets_.push_back(int(offset / unit));
      offset += n;
    }
    if (offset != int64_t(all.size()) || int(bytes.size()) != size_ || offset / unit > INT32_MAX)
      throw Error("all_gather: {} parts of {} bytes in all, for {} ranks and {} bytes", bytes.size(), offset, size_,
                  all.size());
    MPI_Request request;
    MPI_Iallgatherv(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, all.data(), counts_.data(), offsets_.data(),
                    in_blocks ? block_type_ : MPI_BYTE, ranks_, &request);
    complete(request);
  }

  void broadcast(std::span<std::byte> data, int root) override {
    for (size_t at = 0; at < data.size(); at += most_bytes) {
      MPI_Request request;
      MPI_Ibcast(data.data() + at, int(std::min(size_t(most_bytes), data.size() - at)), MPI_BYTE, root, ranks_,
                 &request);
      complete(request);
    }
  }

  void barrier() override {
    MPI_Request request;
    MPI_Ibarrier(ranks_, &request);
    complete(request);
  }

  std::unique_ptr<Communicator> split(int group, int size) override {
    auto some = std::make_unique<MpiCommunicator>(*this, group);
    if (some->size() != size) throw Error("split: {} ranks are in group {}, expected {}", some->size(), group, size);
    return some;
  }

  // Another thread may be inside MPI just now, or hang there: if MPI does not end this process, the alarm does, and the
  // launcher then ends the others.
  void abort(int exit_code) override {
    signal(SIGALRM, SIG_DFL);
    alarm(5);
    MPI_Abort(MPI_COMM_WORLD, exit_code);
    std::_Exit(exit_code);
  }

 private:
  void ask_for_place() {
    MPI_Comm_rank(ranks_, &rank_);
    MPI_Comm_size(ranks_, &size_);
  }
  void ask_for_machine() {
    MPI_Comm here = MPI_COMM_NULL;
    MPI_Comm_split_type(ranks_, MPI_COMM_TYPE_SHARED, rank_, MPI_INFO_NULL, &here);
    first_of_machine_ = rank_;
    MPI_Bcast(&first_of_machine_, 1, MPI_INT, 0, here);
    MPI_Comm_free(&here);
  }
  // Parts of these counts into counts_ and offsets_; returns this rank's. `to`: what it has room for.
  int take_counts(const char* what, size_t from, std::span<const int64_t> counts, size_t to) {
    int64_t offset = 0;
    counts_.clear(), offsets_.clear();
    for (const int64_t n : counts) {
      counts_.push_back(int(n));
      offsets_.push_back(int(offset));
      offset += n;
    }
    if (int(counts.size()) != size_ || offset != int64_t(from) || offset > INT32_MAX ||
        counts_[size_t(rank_)] != int64_t(to))
      throw Error("{}: {} parts of {} floats in all, for {} ranks, {} floats and a part of {}", what, counts.size(),
                  offset, size_, from, to);
    return counts_[size_t(rank_)];
  }

  static constexpr int64_t block = 64;  // bytes
  const bool world_ = true;
  MPI_Comm ranks_ = MPI_COMM_WORLD;
  MPI_Datatype block_type_ = MPI_DATATYPE_NULL;
  int rank_ = 0, size_ = 1, first_of_machine_ = 0;
  std::vector<int> counts_, offsets_;
};

}  // namespace

// The number: of Communicator's virtual functions as they are now.
extern "C" Communicator* mixtape_join_mpi_5() { return new MpiCommunicator; }

extern "C" void mixtape_raw_mpi_5(Collective which, std::span<float> from, std::span<float> to) {
  const int part = int(std::min(from.size(), to.size()));
  switch (which) {
    case Collective::all_reduce:
      MPI_Allreduce(from.data(), to.data(), part, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
      return;
    case Collective::reduce_scatter:
      MPI_Reduce_scatter_block(from.data(), to.data(), part, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
      return;
    case Collective::all_gather:
      MPI_Allgather(from.data(), part, MPI_FLOAT, to.data(), part, MPI_FLOAT, MPI_COMM_WORLD);
      return;
  }
}

}  // namespace mixtape
