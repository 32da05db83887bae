#include "cuda/emulator/async.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "core/base/error.h"

namespace mixtape::emulator {

namespace {

Mbarrier& mbarrier_at(const Place& place, const void* at) {
  for (Mbarrier& b : block->mbarriers)
    if (b.at == at) return b;
  fail(place.text() + ": an mbarrier that was not initialised");
}

// The addresses that the thread sanitizer knows a barrier's phases by: one for each parity, so that an early arrival in
// the next phase cannot pass for one in this.
void* phase_tag(const Mbarrier& b, unsigned parity) {
  return static_cast<unsigned char*>(const_cast<void*>(b.at)) + 4 * (parity % 2);
}

void end_phase_if_complete(Mbarrier& b) {
  if (b.pending || b.bytes) return;
  ++b.phase;
  b.pending = b.expected;
  for (Thread* t : std::exchange(b.waiting, {})) resume(*t);
}

// The thread that the thread sanitizer believes to make bulk copies, while one of these lives.
struct OnCopyFiber {
#if MIXTAPE_TSAN
  OnCopyFiber() {
    void*& fiber = block->copy_fibers[block->first_fiber ? 1 : 0];
    if (!fiber) fiber = __tsan_create_fiber(0);
    __tsan_switch_to_fiber(fiber, __tsan_switch_to_fiber_no_sync);
  }
  ~OnCopyFiber() { __tsan_switch_to_fiber(self->tsan_fiber, __tsan_switch_to_fiber_no_sync); }
#else
  OnCopyFiber() {}
#endif
  OnCopyFiber(const OnCopyFiber&) = delete;
  OnCopyFiber& operator=(const OnCopyFiber&) = delete;
};

// A box's row of a head, of which `inside` bytes lie in the tensor.
const unsigned char* row_of(const BulkCopy& c, int head, int row, size_t& inside) {
  const int64_t h = c.origin[1] + head, r = c.origin[2] + row, cols = c.map.size[0] - c.origin[0];
  const bool real = h >= 0 && h < c.map.size[1] && r >= 0 && r < c.map.size[2] && cols > 0;
  inside = real ? size_t(std::min<int64_t>(cols, c.map.box[0])) * 2 : 0;
  return real ? c.map.data + h * c.map.stride[0] + r * c.map.stride[1] + c.origin[0] * 2 : nullptr;
}

void land(const BulkCopy& c) {
  allow_access(c.to, c.map.bytes());
  for (int r = 0; r < c.map.box[2] * c.map.box[1]; ++r) {
    size_t inside;
    const unsigned char* from = row_of(c, r % c.map.box[1], r / c.map.box[1], inside);
    unsigned char* to = c.to + size_t(r) * c.map.row_bytes();
    const uintptr_t swizzle = reinterpret_cast<uintptr_t>(to) / 128 % 8 * 16;
    for (size_t i = 0; i < c.map.row_bytes(); i += 16) {
      std::memset(to + (i ^ swizzle), 0, 16);
      if (i < inside) std::memcpy(to + (i ^ swizzle), from + i, std::min<size_t>(16, inside - i));
    }
  }
}

}  // namespace

Thread::Thread() = default;
Thread::~Thread() = default;
Block::Block() = default;
Block::~Block() = default;

void init_mbarrier(void* at, int arrivals) {
  expect_shared(at, 8, 8, "mbarrier.init");
  std::memset(at, 0, 8);  // by this thread: others may use it after a barrier
  const Unwatched unwatched;
  if (arrivals < 1) fail("mbarrier.init: a barrier of no arrivals");
  for (const Mbarrier& b : block->mbarriers)
    if (b.at == at) fail("mbarrier.init: for the second time");
  block->mbarriers.push_back({at, arrivals, arrivals});
}

void arrive(const Place& place, void* at, int64_t bytes) {
  static_cast<void>(*static_cast<volatile uint64_t*>(at));  // a race with its initialisation shows
  const Unwatched unwatched;
  Mbarrier& b = mbarrier_at(place, at);
  release(phase_tag(b, b.phase));
  if (b.pending == 0) fail(place.text() + ": more arrivals than the mbarrier counts");
  b.bytes += bytes;
  --b.pending;
  end_phase_if_complete(b);
}

void wait_for_phase(const Place& place, void* at, unsigned parity) {
  static_cast<void>(*static_cast<volatile uint64_t*>(at));
  const Unwatched unwatched;
  if (parity > 1) fail(place.text() + ": a parity that is neither 0 nor 1");
  // Looked up anew each time: a phase may end, and the next one too, before this thread runs again.
  while (mbarrier_at(place, at).phase % 2 == parity) {
    mbarrier_at(place, at).waiting.push_back(self);
    suspend(place);
  }
  Mbarrier& b = mbarrier_at(place, at);
  b.unseen = false;
  acquire(phase_tag(b, parity));
}

void start_bulk_copy(const BulkCopy& copy) {
  const Place place{"a bulk copy"};
  expect_shared(copy.to, copy.map.bytes(), 128, "a bulk copy");
  if (copy.map.row_bytes() != 128) fail("a bulk copy: rows of a swizzled box are 128 bytes");
  auto* to = reinterpret_cast<volatile unsigned char*>(copy.to);
  for (size_t i = 0; i < copy.map.bytes(); ++i) to[i] = poison_byte;  // volatile: see start_copy
  forbid_access(copy.to, copy.map.bytes());
  release(copy.to);
  const Unwatched unwatched;
  mbarrier_at(place, copy.mbarrier);
  block->bulk_copies.push_back(copy);
}

void land_a_copy() {
  auto& copies = block->bulk_copies;
  const size_t i = block->random() % copies.size();
  const BulkCopy copy = copies[i];
  copies.erase(copies.begin() + std::ptrdiff_t(i));
  const OnCopyFiber on_copy_fiber;
  acquire(copy.to);
  land(copy);
  const Unwatched unwatched;
  Mbarrier& b = mbarrier_at({"a bulk copy"}, copy.mbarrier);
  release(phase_tag(b, b.phase));
  b.bytes -= int64_t(copy.map.bytes());
  b.unseen = true;
  end_phase_if_complete(b);
}

void check_end_of_block() {
  if (!block->bulk_copies.empty())
    throw Error("block {},{},{}: ended while a bulk copy was under way", block->index.x, block->index.y,
                block->index.z);
  for (const Mbarrier& b : block->mbarriers) {
    if (b.unseen)
      throw Error("block {},{},{}: ended without a wait for a bulk copy", block->index.x, block->index.y,
                  block->index.z);
    if (b.bytes)
      throw Error("block {},{},{}: an mbarrier ended with {} bytes that {}", block->index.x, block->index.y,
                  block->index.z, b.bytes < 0 ? -b.bytes : b.bytes,
                  b.bytes < 0 ? "were not announced" : "did not come");
  }
}

const unsigned char* SharedMatrix::piece(int r, int c) const {
  const unsigned rows = unsigned(r), cols = unsigned(c);
  const uintptr_t at = reinterpret_cast<uintptr_t>(start) + rows / 8 * stride + rows % 8 * 128 + cols % 8 * 16 +
                       (down ? cols / 8 * leading : 0);
  return reinterpret_cast<const unsigned char*>(at ^ (at / 128 % 8 * 16));
}

// A checksum of this lane's share of the pieces of both matrices.
uint64_t AsyncProduct::look() const {
  uint64_t sum = 0;
  const auto look_at = [&](const SharedMatrix& m, int first, int rows) {
    if (!m.start) return;
    for (int i = self->lane; i < 2 * rows; i += warp_size) {
      const unsigned char* p = m.down ? m.piece(i % 16, i / 16) : m.piece(first + i / 2, i % 2);
      expect_shared(p, 16, 16, "wgmma");
      uint64_t words[2];
      std::memcpy(words, p, 16);
      sum = (sum ^ words[0]) * 0x9E3779B97F4A7C15u;
      sum = (sum ^ words[1] ^ sum >> 29) * 0xBF58476D1CE4E5B9u;
    }
  };
  look_at(a, self->warp % 4 * 16, 16);
  look_at(b, 0, n);
  return sum;
}

void product_fence() { self->product_fence = true; }

void start_product(AsyncProduct p) {
  p.operands_seen = p.look();
  const Unwatched unwatched;
  Thread& me = *self;
  auto held = std::find_if(me.held_sums.begin(), me.held_sums.end(), [&](const HeldSums& h) { return h.at == p.sums; });
  if (held == me.held_sums.end()) {
    if (!me.product_fence) fail(p.place.text() + ": no wgmma.fence since the last wait, or at all");
    const size_t count = size_t(p.n) / 2;
    me.held_sums.push_back({p.sums, std::vector<float>(p.sums, p.sums + count), 0});
    held = me.held_sums.end() - 1;
    std::memset(static_cast<void*>(p.sums), poison_byte, count * sizeof(float));
  }
  ++held->products;
  me.products.push_back(p);
  ++me.products_uncommitted;
}

void commit_products() {
  const Unwatched unwatched;
  self->product_groups.push_back(std::exchange(self->products_uncommitted, 0));
}

void wait_for_products(const Place& place, size_t groups_in_flight) {
  FinishedProducts done;
  Thread& me = *self;
  {
    const Unwatched unwatched;
    me.product_fence = false;
    while (me.product_groups.size() > groups_in_flight) {
      const auto end = me.products.begin() + std::ptrdiff_t(me.product_groups.front());
      done.products.insert(done.products.end(), me.products.begin(), end);
      me.products.erase(me.products.begin(), end);
      me.product_groups.erase(me.product_groups.begin());
    }
  }
  for (const AsyncProduct& p : done.products)
    if (p.look() != p.operands_seen)
      fail(p.place.text() + ": an operand in shared memory changed before the wait at " + place.text());
  {
    const Unwatched unwatched;
    for (const AsyncProduct& p : done.products)
      done.sums.push_back(std::find_if(me.held_sums.begin(), me.held_sums.end(), [&](const HeldSums& h) {
                            return h.at == p.sums;
                          })->values.data());
  }
  warp_meet(place, ~0u, &done, [](const Lanes& lanes) {
    const auto& first = lanes.operands<FinishedProducts>(0).products;
    for (int l = 1; l < warp_size; ++l) {
      const auto& other = lanes.operands<FinishedProducts>(l).products;
      if (other.size() != first.size()) fail(lanes.place.text() + ": lanes wait for different numbers of products");
      for (size_t i = 0; i < first.size(); ++i)
        if (other[i].place != first[i].place || other[i].a != first[i].a || other[i].b != first[i].b)
          fail(lanes.place.text() + ": lanes have different operands of the product at " + first[i].place.text());
    }
    for (size_t i = 0; i < first.size(); ++i) {
      first[i].compute(lanes, i);
      count_wgmma();
    }
  });
  const Unwatched unwatched;
  for (const AsyncProduct& p : done.products) {
    const auto held =
        std::find_if(me.held_sums.begin(), me.held_sums.end(), [&](const HeldSums& h) { return h.at == p.sums; });
    if (--held->products) continue;
    std::copy(held->values.begin(), held->values.end(), held->at);
    me.held_sums.erase(held);
  }
}

}  // namespace mixtape::emulator
