// What goes on while threads do other things, on sm_90: bulk copies into shared memory that complete a barrier there
// (TMA and mbarrier), and products of a warpgroup (wgmma).
//
// A bulk copy lands at some later switch between threads, as late as when nothing else can run; until then its target
// is NaN, and forbidden where the address sanitizer watches. The thread sanitizer is told that copies are made by a
// thread of its own, which only barriers order. A product's sums are NaN from its issue until a wait covers it, when it
// is computed; what it reads in shared memory must be the same at both times.
#pragma once

#include "cuda/emulator/threads.h"

namespace mixtape::emulator {

// A barrier in shared memory. A phase ends when `expected` threads have arrived and as many bytes as they announced.
struct Mbarrier {
  const void* at;
  int expected, pending;
  int64_t bytes = 0;
  unsigned phase = 0;
  bool unseen = false;  // a copy has landed since a thread last saw a phase end
  std::vector<Thread*> waiting = {};
};

void init_mbarrier(void* at, int arrivals);
// One arrival, which announces `bytes` more.
void arrive(const Place& place, void* at, int64_t bytes);
// Until the phase of this parity has ended.
void wait_for_phase(const Place& place, void* at, unsigned parity);

// A tensor of 16-bit elements in global memory and the box of it that a copy brings: columns, heads, rows.
struct TensorMap {
  const unsigned char* data = nullptr;
  std::array<int64_t, 3> size = {};
  std::array<int64_t, 2> stride = {};  // bytes: from head to head, from row to row
  std::array<int, 3> box = {};
  size_t row_bytes() const { return size_t(box[0]) * 2; }
  size_t bytes() const { return row_bytes() * size_t(box[1]) * size_t(box[2]); }
};

// A box whose first element is at `origin`; what lies outside the tensor becomes zeros. Its rows are 128 bytes each in
// shared memory, swizzled as SharedMatrix says.
struct BulkCopy {
  unsigned char* to;
  TensorMap map;
  std::array<int, 3> origin;
  void* mbarrier;
};
void start_bulk_copy(const BulkCopy& copy);

// A matrix of 16-bit elements in shared memory as wgmma finds it: 16-byte pieces of 8 elements, in rows of 128 bytes
// whose pieces are swizzled by the address. `down`: the sum runs down the rows, else along them.
struct SharedMatrix {
  const unsigned char* start = nullptr;
  unsigned leading = 0, stride = 0;  // bytes: from 64 columns to the next 64; from 8 rows to the next 8
  bool down = false;

  // Eight elements: of row (or of k, if `down`) r, the c-th eight of columns.
  const unsigned char* piece(int r, int c) const;
  bool operator==(const SharedMatrix&) const = default;
};

// A lane's part in a product of a warpgroup: m64nNk16.
struct AsyncProduct {
  using Compute = void (*)(const Lanes& lanes, size_t i);  // of a warp: lanes bring FinishedProducts
  Place place;
  Compute compute;
  float* sums;             // where they go
  int n;                   // columns
  const uint32_t* left;    // 4 registers of the left operand; or null
  SharedMatrix a, b;       // the left one, if in shared memory, and the right one
  bool add;                // to the sums that are there
  uint64_t operands_seen;  // of this lane's share of the matrices
  uint64_t look() const;
};
// The values of sums that products under way will change; the registers hold NaN.
struct HeldSums {
  float* at;
  std::vector<float> values;
  int products;
};
struct FinishedProducts {
  std::vector<AsyncProduct> products;
  std::vector<float*> sums;  // of each
};

void product_fence();
void start_product(AsyncProduct product);
void commit_products();
void wait_for_products(const Place& place, size_t groups_in_flight);

// For the scheduler.
void land_a_copy();
void check_end_of_block();

}  // namespace mixtape::emulator
