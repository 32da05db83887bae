// What ranks exchange of the memory of their devices.
//
// An exchange is queued: it sees what the device was asked for before it, follows the exchanges before it, and runs
// beside what the device is asked for later, until wait() puts that behind it. The host waits for nothing. Every rank
// makes the same calls in the same order. Where the device is the host itself, an exchange is done when it returns.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "core/communicator.h"
#include "core/tensor.h"

namespace mixtape {

class Exchange {
 public:
  using Ticket = int64_t;  // a place in the order of exchanges
  virtual ~Exchange() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;

  // Sums over all ranks, in place; float32, or int64 (which wraps around). Of floats the order of additions is the
  // library's, and the same on all ranks.
  virtual Ticket all_reduce(const Tensor& values) = 0;
  // Of float32 that are 0 or more the largest over all ranks, in place, and NaN where one has it.
  virtual Ticket largest(const Tensor& values) = 0;
  // Part i of `from`, counts[i] elements of float32 on every rank, goes to rank i, which gets the parts that are its
  // own one behind another: `to` is size() x counts[rank()] long.
  virtual Ticket all_to_all(const Tensor& from, std::span<const int64_t> counts, const Tensor& to) = 0;
  // The sum over ranks of part i of `from`, counts[i] elements of float32, is `to` on rank i. On GPUs `to` may be that
  // part of `from`, whose other parts are left as they are.
  virtual Ticket reduce_scatter(const Tensor& from, std::span<const int64_t> counts, const Tensor& to) = 0;
  // Part i of `all`, counts[i] elements of any type, is there on rank i, and then on all.
  virtual Ticket all_gather(const Tensor& all, std::span<const int64_t> counts) = 0;
  // On this rank alone.
  virtual Ticket copy(const Tensor& to, const Tensor& from) = 0;

  // What the device is asked for from now on follows that exchange, and all before it.
  virtual void wait(Ticket ticket) = 0;
  // What has gone wrong with the network or with another rank, in words; empty: nothing. From any thread.
  virtual std::string fault() = 0;
};

// Of the host's memory, by a communicator, which must outlive it.
std::unique_ptr<Exchange> host_exchange(Communicator& ranks);

}  // namespace mixtape
