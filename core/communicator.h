// Ranks: the processes of a run, and what they do together. Every rank makes the same calls in the same order.
//
// Memory is the host's. A run of one process has single_process(), which does nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>

namespace mixtape {

class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  // The first of the ranks that share this one's machine.
  virtual int first_of_machine() const { return 0; }

  // Sums over all ranks, in place: every rank gets the same bits. Of floats the order of additions is the library's.
  virtual void all_reduce(std::span<float> values) = 0;
  virtual void all_reduce(std::span<int64_t> values) = 0;
  // Part i of `from`, counts[i] long on every rank, goes to rank i, which gets the parts that are its own one behind
  // another: `to` is size() x counts[rank()] long.
  virtual void all_to_all(std::span<const float> from, std::span<const int64_t> counts, std::span<float> to) = 0;
  // The sum over ranks of part i, counts[i] long, is `to` on rank i. The order of additions is the library's.
  virtual void reduce_scatter(std::span<const float> from, std::span<const int64_t> counts, std::span<float> to) = 0;
  // Part i of `all`, bytes[i] long, is there on rank i, and then on all.
  virtual void all_gather(std::span<std::byte> all, std::span<const int64_t> bytes) = 0;
  virtual void broadcast(std::span<std::byte> data, int root) = 0;
  virtual void barrier() = 0;

  // The ranks that name the same group, `size` of them, in the order in which they are numbered here. All ranks call
  // it. What it returns must not outlive this.
  virtual std::unique_ptr<Communicator> split(int group, int size) = 0;

  // Has `job` done with these ranks: here and now, or by a thread of its own in the order of posting while the caller
  // goes on (train/parallel/communication_thread.h). Every rank posts the same jobs in the same order. What a job uses
  // must live until wait() has returned, which throws what the job has thrown. `name`: a literal, for traces.
  using Job = std::function<void(Communicator&)>;
  virtual int64_t post(const char* /*name*/, Job job) {
    job(*this);
    return 0;
  }
  // Until that job, and all before it, are done.
  virtual void wait(int64_t /*job*/) {}

  // Ends all ranks, from any thread, with this exit code. Does not return.
  virtual void abort(int exit_code) = 0;
};

// The only process. Lives as long as the program.
Communicator& single_process();

// Rank 0 of so many, for plans: it knows its number and that of its groups, and refuses everything else.
std::unique_ptr<Communicator> planned_rank(int size);

}  // namespace mixtape
