// NCCL's collectives. The library is loaded when ranks meet: a run on one GPU needs none.
//
// The communicator does not block: a call that the network holds up returns, and is asked about until it is done, so
// that a rank whose peers are gone can still be ended by its watchdog, which asks fault() too.
#include <dlfcn.h>
#include <nccl.h>

#include <algorithm>
#include <chrono>
#include <numeric>
#include <thread>

#include "core/base/error.h"
#include "cuda/collectives.h"

namespace mixtape::cuda {
namespace {

struct Library {
  decltype(&ncclGetVersion) get_version = nullptr;
  decltype(&ncclGetUniqueId) get_unique_id = nullptr;
  decltype(&ncclCommInitRankConfig) init = nullptr;
  decltype(&ncclCommGetAsyncError) async_error = nullptr;
  decltype(&ncclCommAbort) abort = nullptr;
  decltype(&ncclGetErrorString) text = nullptr;
  decltype(&ncclAllReduce) all_reduce = nullptr;
  decltype(&ncclReduce) reduce = nullptr;
  decltype(&ncclBroadcast) broadcast = nullptr;
  decltype(&ncclSend) send = nullptr;
  decltype(&ncclRecv) receive = nullptr;
  decltype(&ncclGroupStart) group_start = nullptr;
  decltype(&ncclGroupEnd) group_end = nullptr;
  std::string missing;  // why there is none
};

Library load() {
  Library l;
  void* const file = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
  if (!file) {
    l.missing = std::string("NCCL cannot be loaded: ") + dlerror() + "; install libnccl2";
    return l;
  }
  const auto find = [&](auto& function, const char* name) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(file, name));
    if (!function && l.missing.empty())
      l.missing = std::string("NCCL is too old: it has no ") + name + "; 2.18 or later is needed";
  };
  find(l.get_version, "ncclGetVersion");
  find(l.get_unique_id, "ncclGetUniqueId");
  find(l.init, "ncclCommInitRankConfig");
  find(l.async_error, "ncclCommGetAsyncError");
  find(l.abort, "ncclCommAbort");
  find(l.text, "ncclGetErrorString");
  find(l.all_reduce, "ncclAllReduce");
  find(l.reduce, "ncclReduce");
  find(l.broadcast, "ncclBroadcast");
  find(l.send, "ncclSend");
  find(l.receive, "ncclRecv");
  find(l.group_start, "ncclGroupStart");
  find(l.group_end, "ncclGroupEnd");
  return l;
}

const Library& library() {
  static const Library loaded = load();
  return loaded;
}

}  // namespace

struct Collectives::State {
  const Library& nccl = library();
  cudaStream_t stream = nullptr;
  int rank = 0;
  ncclComm_t ranks = nullptr;

  [[noreturn]] void fail(const char* what, ncclResult_t result) const {
    throw Error("NCCL: {}: {}; NCCL_DEBUG=WARN says more", what, nccl.text(result));
  }
  // A call that has returned `result` is done.
  void finish(const char* what, ncclResult_t result) const {
    while (result == ncclInProgress) {
      std::this_thread::sleep_for(std::chrono::microseconds(50));
      if (const ncclResult_t asked = nccl.async_error(ranks, &result); asked != ncclSuccess) fail(what, asked);
    }
    if (result != ncclSuccess) fail(what, result);
  }
  // calls(call): what it gives to `call` is one launch.
  template <class Calls>
  void group(const char* what, Calls&& calls) const {
    finish(what, nccl.group_start());
    calls([&](ncclResult_t result) {
      if (result != ncclSuccess && result != ncclInProgress) fail(what, result);
    });
    finish(what, nccl.group_end());
  }
  // each(rank, offset, count) for each part that has anything in it.
  template <class Each>
  void for_each_part(const char* what, std::span<const int64_t> counts, Each&& each) const {
    group(what, [&](auto&& call) {
      int64_t offset = 0;
      for (int r = 0; r < int(counts.size()); offset += counts[size_t(r++)])
        if (counts[size_t(r)] > 0) call(each(r, offset, size_t(counts[size_t(r)])));
    });
  }
};

Collectives::Collectives(Runtime& runtime, Communicator& ranks) : state_(std::make_unique<State>()) {
  State& s = *state_;
  if (!s.nccl.missing.empty()) throw ConfigError("several GPUs: {}", s.nccl.missing);
  s.stream = static_cast<cudaStream_t>(runtime.stream(Queue::communication));
  s.rank = ranks.rank();
  ncclUniqueId id = {};
  if (s.rank == 0) s.finish("an id for the ranks", s.nccl.get_unique_id(&id));
  ranks.broadcast(std::as_writable_bytes(std::span(&id, 1)), 0);
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  s.finish("meeting the other ranks", s.nccl.init(&s.ranks, ranks.size(), id, s.rank, &config));
}

// Whatever is on its way belongs to a run that has ended, well or not.
Collectives::~Collectives() {
  if (state_->ranks) state_->nccl.abort(state_->ranks);
}

void Collectives::all_reduce(float* values, int64_t count) {
  State& s = *state_;
  s.finish("all-reduce", s.nccl.all_reduce(values, values, size_t(count), ncclFloat, ncclSum, s.ranks, s.stream));
}

void Collectives::all_reduce(int64_t* values, int64_t count) {
  State& s = *state_;
  s.finish("all-reduce", s.nccl.all_reduce(values, values, size_t(count), ncclInt64, ncclSum, s.ranks, s.stream));
}

void Collectives::largest(int32_t* values, int64_t count) {
  State& s = *state_;
  s.finish("maximum", s.nccl.all_reduce(values, values, size_t(count), ncclInt32, ncclMax, s.ranks, s.stream));
}

void Collectives::all_to_all(const float* from, std::span<const int64_t> counts, float* to) {
  State& s = *state_;
  const auto own = size_t(counts[size_t(s.rank)]);
  s.group("all-to-all", [&](auto&& call) {
    int64_t offset = 0;
    for (int r = 0; r < int(counts.size()); offset += counts[size_t(r++)]) {
      if (counts[size_t(r)] > 0)
        call(s.nccl.send(from + offset, size_t(counts[size_t(r)]), ncclFloat, r, s.ranks, s.stream));
      if (own > 0) call(s.nccl.receive(to + own * size_t(r), own, ncclFloat, r, s.ranks, s.stream));
    }
  });
}

// Parts differ in length, which NCCL's own reduce-scatter cannot.
void Collectives::reduce_scatter(const float* from, std::span<const int64_t> counts, float* own) {
  State& s = *state_;
  s.for_each_part("reduce-scatter", counts, [&](int r, int64_t offset, size_t count) {
    return s.nccl.reduce(from + offset, r == s.rank ? own : nullptr, count, ncclFloat, ncclSum, r, s.ranks, s.stream);
  });
}

void Collectives::all_gather(std::byte* all, std::span<const int64_t> bytes) {
  State& s = *state_;
  s.for_each_part("all-gather", bytes, [&](int r, int64_t offset, size_t count) {
    return s.nccl.broadcast(all + offset, all + offset, count, ncclUint8, r, s.ranks, s.stream);
  });
}

std::string Collectives::fault() {
  ncclResult_t result = ncclSuccess;
  const ncclResult_t asked = state_->nccl.async_error(state_->ranks, &result);
  if (asked != ncclSuccess) result = asked;
  if (result == ncclSuccess || result == ncclInProgress) return {};
  return std::string("NCCL: ") + state_->nccl.text(result);
}

std::string Collectives::version(std::string& missing) {
  missing = library().missing;
  int number = 0;
  if (!missing.empty() || library().get_version(&number) != ncclSuccess) return {};
  return fmt::format("NCCL {}.{}.{}", number / 10000, number / 100 % 100, number % 100);
}

}  // namespace mixtape::cuda
