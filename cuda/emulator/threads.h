// The threads of one block: fibers on one thread of the host, which meet at barriers and warp instructions.
//
// A fiber runs until it meets others or returns; which one runs next is drawn from a seeded generator. Errors of a
// kernel (a barrier that some threads never reach, lanes that meet at different instructions, an address outside shared
// memory) are thrown by launch() as mixtape::Error and name the place in the kernel. docs/emulator.md says what it can
// and cannot find.
#pragma once

#include <array>
#include <cstdint>
#include <exception>
#include <memory>
#include <string>
#include <vector>

#include "cuda/emulator/sanitizers.h"

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

namespace mixtape::emulator {

constexpr int warp_size = 32;
constexpr int most_threads = 1024;
constexpr unsigned most_shared_bytes = 227 << 10;  // of a block, on sm_90
constexpr unsigned char poison_byte = 0xff;        // NaN in fp32, fp16, bf16, e4m3 and e5m2, and -1

// Where a thread waits: an instruction and the line of the kernel that called it.
struct Place {
  const char* what = "its start";
  const char* file = "";
  int line = 0;
  bool operator==(const Place&) const = default;
  std::string text() const;
};

// One asynchronous copy into shared memory; the last `bytes - valid` are zeros.
struct AsyncCopy {
  void* to;
  const void* from;
  unsigned bytes, valid;
};

struct AsyncProduct;  // emulator/async.h, as are the next two
struct Mbarrier;
struct BulkCopy;

// What a CUDA thread is. `resume` is where its fiber goes on.
struct Thread {
  void* resume = nullptr;
  char* stack = nullptr;
  size_t stack_bytes = 0;
  void *asan_stack = nullptr, *tsan_fiber = nullptr;

  dim3 index;
  int warp = 0, lane = 0;
  bool returned = false;
  Place place;               // the meeting it waits at
  unsigned mask = 0;         // the lanes that take part in it
  void* operands = nullptr;  // what it brought

  std::vector<AsyncCopy> copies;    // issued and not waited for, oldest first
  std::vector<size_t> group_sizes;  // how many of them each committed group holds
  size_t uncommitted = 0;

  std::vector<AsyncProduct> products;  // of wgmma: issued and not waited for, oldest first
  std::vector<size_t> product_groups;  // how many of them each committed group holds
  size_t products_uncommitted = 0;
  std::vector<struct HeldSums> held_sums;  // the values of sums that products will still change
  bool product_fence = false;              // wgmma.fence was executed since the last wait

  Thread();
  ~Thread();
};

struct Warp {
  unsigned ready = 0, waiting = 0, all = 0;
  unsigned order = 0, next = 0;  // lanes run in the order next ^ order
};

struct Block {
  dim3 index, grid, threads;
  int count = 0, at_barrier = 0, returned = 0, phase = 0;
  Place barrier_place;
  unsigned char* shared = nullptr;
  size_t shared_bytes = 0;
  std::vector<Warp> warps;
  std::vector<std::unique_ptr<Thread>> fibers;
  size_t first_fiber = 0;
  Thread host;
  void (*kernel)(const void* arguments) = nullptr;
  const void* arguments = nullptr;
  std::exception_ptr error;
  uint64_t random_state = 1;
  std::vector<Mbarrier> mbarriers;    // in shared memory
  std::vector<BulkCopy> bulk_copies;  // under way
  void* copy_fibers[2] = {};          // which the thread sanitizer believes to do them
  char launch_tag = 0, end_tag = 0;   // addresses that the thread sanitizer knows the launch's start and end by

  Block();
  ~Block();
  Thread& thread(size_t i) { return *fibers[first_fiber + i]; }
  unsigned random();
};

// Plain pointers: reading them needs no check whether they are initialised.
extern constinit thread_local Block* block;
extern constinit thread_local Thread* self;  // the CUDA thread that runs

// Of the order in which lanes, warps and blocks run, from the next launch on.
void set_seed(uint64_t seed);
uint64_t seed();
// What has run so far on this thread of the host, for tests: a kernel that skips tiles of work makes fewer products.
struct Counts {
  int64_t launches = 0, threads = 0;
  int64_t mma = 0;    // products of a warp
  int64_t wgmma = 0;  // a warp's quarters of a warpgroup's products
};
Counts counts();
void count_mma();
void count_wgmma();

// Throws with the block and the thread before the message.
[[noreturn]] void fail(const std::string& message);

// The lanes of a warp that met: operands<T>(i) is what lane i brought.
struct Lanes {
  Place place;
  unsigned mask;
  std::array<void*, warp_size> brought;
  bool has(int lane) const { return mask >> lane & 1; }
  template <class T>
  T& operands(int lane) const {
    return *static_cast<T*>(brought[lane]);
  }
};

// The lanes in `mask` meet here; the last to come does the work of all. As on the GPU this orders no memory accesses.
void warp_meet(const Place& place, unsigned mask, void* operands, void (*act)(const Lanes&));
void warp_barrier(const Place& place, unsigned mask);
void block_barrier(const Place& place);
// Others run until resume() is called for this thread.
void suspend(const Place& place);
void resume(Thread& thread);

// Shared memory of at least `bytes`; an error if the launch gave less.
void* shared_memory(size_t bytes);
void expect_shared(const void* p, size_t bytes, size_t alignment, const char* what);

// Copies into shared memory that land when the thread that started them waits. Until then the target is NaN, and
// forbidden where the address sanitizer watches.
void start_copy(const AsyncCopy& copy);
void commit_copies();
void wait_for_copies(size_t groups_in_flight);

// Runs all blocks of a grid. `kernel(arguments)` is called once in each thread.
void run_grid(dim3 grid, dim3 threads, size_t shared_bytes, void (*kernel)(const void*), const void* arguments);

}  // namespace mixtape::emulator
