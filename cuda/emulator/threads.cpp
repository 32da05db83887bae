#include "cuda/emulator/threads.h"

#include <sys/mman.h>

#include <algorithm>
#include <boost/context/detail/fcontext.hpp>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <random>

#include "core/base/error.h"
#include "cuda/emulator/async.h"

namespace mixtape::emulator {

constinit thread_local Block* block = nullptr;
constinit thread_local Thread* self = nullptr;

namespace {

namespace context = boost::context::detail;

constinit uint64_t run_seed = 1;
constinit thread_local Counts run_counts;

#if MIXTAPE_ASAN || !defined(__OPTIMIZE__)
constexpr size_t fiber_stack_bytes = 512 << 10;
#else
constexpr size_t fiber_stack_bytes = 64 << 10;
#endif
constexpr size_t page = 4096;

void landed(context::transfer_t from) { static_cast<Thread*>(from.data)->resume = from.fctx; }

void switch_to(Thread& next) {
  Thread& me = *self;
  if (&next == &me) return;
  self = &next;
#if MIXTAPE_ASAN
  __sanitizer_start_switch_fiber(&me.asan_stack, next.stack, next.stack_bytes);
#endif
#if MIXTAPE_TSAN
  __tsan_switch_to_fiber(next.tsan_fiber, __tsan_switch_to_fiber_no_sync);
#endif
  context::transfer_t from = context::jump_fcontext(next.resume, &me);
#if MIXTAPE_ASAN
  __sanitizer_finish_switch_fiber(me.asan_stack, nullptr, nullptr);
#endif
  landed(from);
}

bool some_thread_can_run() {
  return std::any_of(block->warps.begin(), block->warps.end(), [](const Warp& w) { return w.ready != 0; });
}

// The fiber to run next: mostly another lane of this warp, at times one of another warp; the host if none can run.
Thread& pick() {
  while (!block->bulk_copies.empty() && block->returned < block->count &&
         (block->random() % 16 == 0 || !some_thread_can_run()))
    land_a_copy();
  Warp* warp = self == &block->host ? nullptr : &block->warps[self->warp];
  if (!warp || !warp->ready || block->random() % 64 == 0) {
    const size_t n = block->warps.size(), start = block->random() % n;
    for (size_t i = 0; i < n; ++i) {
      warp = &block->warps[(start + i) % n];
      if (warp->ready) break;
    }
    if (!warp->ready) return block->host;
  }
  for (;; ++warp->next) {
    const unsigned lane = (warp->next ^ warp->order) % warp_size;
    if (warp->ready >> lane & 1) return block->thread(size_t(warp - block->warps.data()) * warp_size + lane);
  }
}

void wake(Warp& warp, unsigned lanes) {
  warp.ready |= lanes;
  warp.order = block->random();
  warp.next = 0;
}

// The addresses that the thread sanitizer knows barriers by: two for the block, so that a fast thread's next arrival
// cannot pass for this one's, and one a warp. They lie behind the block's shared memory, so each block has its own.
constexpr size_t tags = 2 + most_threads / warp_size;
void* tag(size_t i) { return block->shared + (block->shared_bytes + 7) / 8 * 8 + 8 * i; }
void* barrier_tag() { return tag(size_t(block->phase % 2)); }
void* warp_tag() { return tag(2 + size_t(self->warp)); }

void fiber_main(context::transfer_t from) {
  Thread& me = *self;
#if MIXTAPE_ASAN
  Thread& before = *static_cast<Thread*>(from.data);
  const void* bottom;
  __sanitizer_finish_switch_fiber(nullptr, &bottom, &before.stack_bytes);
  before.stack = static_cast<char*>(const_cast<void*>(bottom));
#endif
  {
    const Unwatched unwatched;
    landed(from);
  }
  for (;;) {
    acquire(&block->launch_tag);
    try {
      block->kernel(block->arguments);
      const Unwatched unwatched;
      if (!me.copies.empty()) fail("returned while an asynchronous copy was under way");
      if (!me.products.empty()) fail("returned while a product of a warpgroup was under way");
    } catch (...) {
      block->error = std::current_exception();
    }
    release(&block->end_tag);
    const Unwatched unwatched;
    me.returned = true;
    ++block->returned;
    block->warps[me.warp].ready &= ~(1u << me.lane);
    switch_to(block->error ? block->host : pick());
  }
}

void make_fibers(size_t count) {
  while (block->fibers.size() < count) {
    auto t = std::make_unique<Thread>();
    void* stack =
        mmap(nullptr, fiber_stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (stack == MAP_FAILED) throw Error("emulator: no memory for the stack of a CUDA thread");
    mprotect(stack, page, PROT_NONE);  // an overflow faults instead of writing into the next stack
    t->stack = static_cast<char*>(stack);
    t->stack_bytes = fiber_stack_bytes;
    t->resume = context::make_fcontext(t->stack + fiber_stack_bytes, fiber_stack_bytes - page, fiber_main);
#if MIXTAPE_TSAN
    t->tsan_fiber = __tsan_create_fiber(0);
#endif
    block->fibers.push_back(std::move(t));
  }
}

std::string deadlock_text() {
  std::string text = fmt::format("block {},{},{}: deadlock:", block->index.x, block->index.y, block->index.z);
  std::vector<std::string> seen;
  for (int i = 0; i < block->count; ++i) {
    const Thread& t = block->thread(size_t(i));
    const std::string state = t.returned ? "has returned" : "waits at " + t.place.text();
    if (std::find(seen.begin(), seen.end(), state) != seen.end()) continue;
    seen.push_back(state);
    text += fmt::format("{} thread {} {}", seen.size() > 1 ? "," : "", i, state);
  }
  return text;
}

// A block whose threads wait in vain ends here, as does an error inside one. What was on their stacks is lost.
[[noreturn]] void abandon() {
  const std::string deadlock = block->error ? "" : deadlock_text();
#if MIXTAPE_TSAN
  void* const host = block->host.tsan_fiber;
#endif
  for (auto& t : block->fibers) {
#if MIXTAPE_TSAN
    __tsan_switch_to_fiber(t->tsan_fiber, __tsan_switch_to_fiber_no_sync);
    __tsan_switch_to_fiber(host, 0);  // what the fiber did lies before all that the host does from here on
#endif
    allow_access(t->stack, t->stack_bytes);
    munmap(t->stack, t->stack_bytes);  // its fiber stays known to the thread sanitizer, which would miss its end
  }
  block->fibers.clear();
  block->first_fiber = 0;
  std::exception_ptr error = std::exchange(block->error, nullptr);
  if (error) std::rethrow_exception(error);
  throw Error("{}", deadlock);
}

// Shared memory of the blocks of a launch: one piece; to find races one a block, as its reuse would seem to order
// blocks. Where the address sanitizer does not watch its end, guard bytes do.
class SharedMemory {
 public:
  explicit SharedMemory(size_t bytes) : bytes_(bytes) {}
  ~SharedMemory() {
    for (unsigned char* p : pieces_) {
      allow_access(p, bytes_);
      std::free(p);
    }
  }
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;

  unsigned char* next() {
    if (pieces_.empty() || finds_races) {
      void* p = nullptr;
      if (posix_memalign(&p, 1024, std::max<size_t>(bytes_ + tail_bytes(), 1)))
        throw Error("emulator: no memory for {} bytes of shared memory", bytes_);
      pieces_.push_back(static_cast<unsigned char*>(p));
    }
    unsigned char* piece = pieces_.back();
    allow_access(piece, bytes_);
    std::memset(piece, poison_byte, bytes_);
    std::memset(piece + bytes_, guard, tail_bytes());
    return piece;
  }
  // After a block has ended.
  void check() const {
    const unsigned char* end = pieces_.back() + bytes_;
    for (size_t i = 0; i < tail_bytes(); ++i)
      if (end[i] != guard)
        throw Error("block {},{},{}: byte {} past the end of {} bytes of shared memory was written", block->index.x,
                    block->index.y, block->index.z, i, bytes_);
  }

 private:
  static constexpr unsigned char guard = 0xa5;
  // Where races are looked for, the barriers' tags are among them: of those the addresses count, not the bytes.
  size_t tail_bytes() const { return MIXTAPE_ASAN ? 0 : finds_races ? 8 + 8 * tags : 256; }
  size_t bytes_;
  std::vector<unsigned char*> pieces_;
};

void start_block(unsigned id) {
  Block& b = *block;
  b.index = dim3(id % b.grid.x, id / b.grid.x % b.grid.y, id / b.grid.x / b.grid.y);
  b.at_barrier = b.returned = 0;
  // Neighbouring blocks run on different fibers, else their threads i would seem to be one thread.
  b.first_fiber = finds_races && b.first_fiber == 0 ? size_t(b.count) : 0;
  b.warps.assign(size_t(b.count + warp_size - 1) / warp_size, {});
  for (int i = 0; i < b.count; ++i) {
    Thread& t = b.thread(size_t(i));
    t.warp = i / warp_size;
    t.lane = i % warp_size;
    t.index = dim3(unsigned(i) % b.threads.x, unsigned(i) / b.threads.x % b.threads.y,
                   unsigned(i) / b.threads.x / b.threads.y);
    t.returned = false;
    t.place = {};
    t.copies.clear();
    t.group_sizes.clear();
    t.uncommitted = 0;
    t.products.clear();
    t.product_groups.clear();
    t.products_uncommitted = 0;
    t.held_sums.clear();
    t.product_fence = false;
    b.warps[size_t(t.warp)].all |= 1u << t.lane;
  }
  for (Warp& w : b.warps) wake(w, w.all);
  b.mbarriers.clear();
  b.bulk_copies.clear();
}

void check_launch(dim3 grid, dim3 threads, size_t shared_bytes) {
  const uint64_t count = uint64_t(threads.x) * threads.y * threads.z;
  if (count < 1 || count > most_threads)
    throw Error("launch: {} threads a block, expected 1 to {}", count, most_threads);
  if (grid.x < 1 || grid.x > 0x7fffffffu || grid.y < 1 || grid.y > 65535 || grid.z < 1 || grid.z > 65535)
    throw Error("launch: a grid of {} x {} x {} blocks, expected 1 to 2^31 - 1 x 65535 x 65535", grid.x, grid.y,
                grid.z);
  if (shared_bytes > most_shared_bytes)
    throw Error("launch: {} bytes of shared memory, at most {}", shared_bytes, most_shared_bytes);
  if (self && self != &block->host) throw Error("launch: called in a kernel");
}

}  // namespace

std::string Place::text() const { return line ? fmt::format("{} ({}:{})", what, file, line) : what; }

unsigned Block::random() {  // xorshift64*
  random_state ^= random_state >> 12;
  random_state ^= random_state << 25;
  random_state ^= random_state >> 27;
  return unsigned(random_state * 0x2545F4914F6CDD1Dull >> 32);
}

void set_seed(uint64_t seed) { run_seed = seed; }
uint64_t seed() { return run_seed; }
Counts counts() { return run_counts; }
void count_mma() { ++run_counts.mma; }
void count_wgmma() { ++run_counts.wgmma; }

void fail(const std::string& message) {
  throw Error("block {},{},{} thread {}: {}", block->index.x, block->index.y, block->index.z,
              self->warp * warp_size + self->lane, message);
}

void warp_meet(const Place& place, unsigned mask, void* operands, void (*act)(const Lanes&)) {
  const Unwatched unwatched;
  Thread& me = *self;
  Warp& warp = block->warps[size_t(me.warp)];
  if (!(mask >> me.lane & 1)) fail(fmt::format("{}: lane {} is not in its own mask", place.text(), me.lane));
  if (mask & ~warp.all) fail(place.text() + ": the mask names lanes that the block does not have");
  me.place = place;
  me.mask = mask;
  me.operands = operands;
  warp.waiting |= 1u << me.lane;
  warp.ready &= ~(1u << me.lane);
  if ((warp.waiting & mask) != mask) return switch_to(pick());

  Lanes lanes{place, mask, {}};
  for (int i = 0; i < warp_size; ++i) {
    if (!lanes.has(i)) continue;
    const Thread& other = block->thread(size_t(me.warp) * warp_size + size_t(i));
    if (other.place != place || other.mask != mask)
      fail(fmt::format("{}: lane {} is at {}", place.text(), i, other.place.text()));
    lanes.brought[size_t(i)] = other.operands;
  }
  if (act) act(lanes);
  warp.waiting &= ~mask;
  wake(warp, mask);
}

void warp_barrier(const Place& place, unsigned mask) {
  void* const t = warp_tag();
  release(t);
  warp_meet(place, mask, nullptr, nullptr);
  acquire(t);
}

void block_barrier(const Place& place) {
  Thread& me = *self;
  void* const t = barrier_tag();
  release(t);
  {
    const Unwatched unwatched;
    Warp& warp = block->warps[size_t(me.warp)];
    if (block->at_barrier && block->barrier_place != place)
      fail(place.text() + ": others wait at " + block->barrier_place.text());
    block->barrier_place = me.place = place;
    warp.ready &= ~(1u << me.lane);
    if (++block->at_barrier < block->count) {
      switch_to(pick());
    } else {
      block->at_barrier = 0;
      ++block->phase;
      for (Warp& w : block->warps) wake(w, w.all);
    }
  }
  acquire(t);
}

void suspend(const Place& place) {
  Thread& me = *self;
  me.place = place;
  block->warps[size_t(me.warp)].ready &= ~(1u << me.lane);
  switch_to(pick());
}

void resume(Thread& thread) { block->warps[size_t(thread.warp)].ready |= 1u << thread.lane; }

void* shared_memory(size_t bytes) {
  if (bytes > block->shared_bytes)
    fail(fmt::format("shared memory of {} bytes is used, but the launch gives {}", bytes, block->shared_bytes));
  return block->shared;
}

void expect_shared(const void* p, size_t bytes, size_t alignment, const char* what) {
  const auto* c = static_cast<const unsigned char*>(p);
  if (reinterpret_cast<uintptr_t>(p) % alignment)
    fail(fmt::format("{}: an address that is no multiple of {}", what, alignment));
  if (c < block->shared || c + bytes > block->shared + block->shared_bytes)
    fail(fmt::format("{}: an address outside shared memory", what));
}

// The stores are volatile, else the compiler's inline memset escapes the thread sanitizer.
void start_copy(const AsyncCopy& copy) {
  auto* to = static_cast<volatile unsigned char*>(copy.to);
  for (unsigned i = 0; i < copy.bytes; ++i) to[i] = poison_byte;
  forbid_access(copy.to, copy.bytes);
  const Unwatched unwatched;
  self->copies.push_back(copy);
  ++self->uncommitted;
}

void commit_copies() {
  const Unwatched unwatched;
  self->group_sizes.push_back(std::exchange(self->uncommitted, 0));
}

void wait_for_copies(size_t groups_in_flight) {
  std::vector<AsyncCopy> done;
  {
    const Unwatched unwatched;
    Thread& me = *self;
    while (me.group_sizes.size() > groups_in_flight) {
      const auto end = me.copies.begin() + std::ptrdiff_t(me.group_sizes.front());
      done.insert(done.end(), me.copies.begin(), end);
      me.copies.erase(me.copies.begin(), end);
      me.group_sizes.erase(me.group_sizes.begin());
    }
  }
  for (const AsyncCopy& copy : done) {
    allow_access(copy.to, copy.bytes);
    std::memcpy(copy.to, copy.from, copy.valid);
    std::memset(static_cast<char*>(copy.to) + copy.valid, 0, copy.bytes - copy.valid);
  }
}

void run_grid(dim3 grid, dim3 threads, size_t shared_bytes, void (*kernel)(const void*), const void* arguments) {
  check_launch(grid, threads, shared_bytes);
  if (!block) {
    block = new Block;
    self = &block->host;
  }
  Block& b = *block;
  b.grid = grid;
  b.threads = threads;
  b.count = int(threads.x * threads.y * threads.z);
  b.kernel = kernel;
  b.arguments = arguments;
  b.shared_bytes = shared_bytes;
  b.random_state = run_seed * 2654435761u + 1;
  b.first_fiber = 0;
  make_fibers(size_t(finds_races ? 2 * b.count : b.count));
#if MIXTAPE_TSAN
  b.host.tsan_fiber = __tsan_get_current_fiber();
#endif

  std::vector<unsigned> order(size_t(grid.x) * grid.y * grid.z);
  std::iota(order.begin(), order.end(), 0u);
  std::shuffle(order.begin(), order.end(), std::mt19937_64(run_seed));
  ++run_counts.launches;
  run_counts.threads += int64_t(order.size()) * b.count;

  SharedMemory memory(shared_bytes);
  for (const unsigned id : order) {
    const Unwatched unwatched;
    b.shared = memory.next();
    start_block(id);
    release(&b.launch_tag);
    switch_to(pick());
    if (b.error || b.returned < b.count) abandon();
    check_end_of_block();
    memory.check();
  }
  acquire(&b.end_tag);
  b.shared = nullptr;
}

}  // namespace mixtape::emulator
