// wgmma.mma_async.m64nNk16: d[64 x N] += a[64 x 16] b[16 x N] by a warpgroup (four warps), for fp16 or bf16 operands
// and float32 sums, while its threads go on.
//
// Sums: warp w of the warpgroup has rows 16 w .. 16 w + 15, each eight columns in the layout of mma_m16n8k16's d, so
// d[n][r] of a lane is the r-th register of columns 8 n .. 8 n + 7. a in registers has the layout of mma_m16n8k16's a;
// sums rounded in pairs are such operands. Matrices in shared memory are panes of 64 columns, [rows][64], as copy_box
// (tma.h) writes them, beginning at multiples of 1024 bytes:
//
//   operand       stored          the sum runs    a step of k = 16 begins
//   a             [m][k]          along rows      32 bytes further in the row
//   b             [n][k]          along rows      32 bytes further in the row
//   b, `down`     [k][n]          down the rows   16 rows further, 2048 bytes
//
// A product may begin when the threads' own writes to its registers lie before a fence(); its sums and its operands, in
// registers too, belong to it until a wait that covers its group. So wait() and fence() name the registers: what the
// compiler does with them stays on its side. In the emulator sums are NaN until the wait, and operands are read there.
#pragma once

#include "cuda/device/mbarrier.h"
#include "cuda/device/mma_m16n8k16.h"

namespace mixtape::cuda {

constexpr int warpgroup_size = 128;
__device__ inline int warpgroup_id() { return int(threadIdx.x) / warpgroup_size; }

#ifdef __CUDACC__

using SharedMatrix =
    uint64_t;  // the descriptor: address, offsets (all in 16 bytes), and 1 << 62 for the 128-byte swizzle

// The matrix that begins at `start`; with `down`, the next 64 columns are `pane_bytes` further.
template <bool down>
__device__ inline SharedMatrix shared_matrix(const void* start, int pane_bytes) {
  constexpr uint64_t eight_rows = 1024 / 16;
  return uint64_t(1) << 62 | eight_rows << 32 | uint64_t(down ? pane_bytes / 16 : 1) << 16 |
         uint64_t((shared_address(start) & 0x3ffff) / 16);
}
__device__ inline SharedMatrix moved(SharedMatrix m, int bytes) { return m + uint64_t(bytes / 16); }

template <int N>
__device__ inline void hold_registers(float (&x)[N][4]) {
#pragma unroll
  for (int i = 0; i < N; ++i)
#pragma unroll
    for (int r = 0; r < 4; ++r) asm volatile("" : "+f"(x[i][r])::"memory");
}
template <int N>
__device__ inline void hold_registers(uint32_t (&x)[N][4]) {
#pragma unroll
  for (int i = 0; i < N; ++i)
#pragma unroll
    for (int r = 0; r < 4; ++r) asm volatile("" : "+r"(x[i][r])::"memory");
}

template <class... Registers>
__device__ inline void wgmma_fence(Registers&... registers) {
  (hold_registers(registers), ...);
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ inline void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int groups_in_flight, class... Registers>
__device__ inline void wgmma_wait(Registers&... registers) {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(groups_in_flight) : "memory");
  (hold_registers(registers), ...);
}

#define MIXTAPE_32_REGISTERS                                                                        \
  "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25," \
  "%26,%27,%28,%29,%30,%31}"
#define MIXTAPE_64_REGISTERS                                                                        \
  "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25," \
  "%26,%27,%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,"    \
  "%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63}"
#define MIXTAPE_4_SUMS(i) "+f"(d[i][0]), "+f"(d[i][1]), "+f"(d[i][2]), "+f"(d[i][3])
#define MIXTAPE_16_SUMS(i) MIXTAPE_4_SUMS(i), MIXTAPE_4_SUMS(i + 1), MIXTAPE_4_SUMS(i + 2), MIXTAPE_4_SUMS(i + 3)
#define MIXTAPE_32_SUMS MIXTAPE_16_SUMS(0), MIXTAPE_16_SUMS(4)
#define MIXTAPE_64_SUMS MIXTAPE_32_SUMS, MIXTAPE_16_SUMS(8), MIXTAPE_16_SUMS(12)
// `sums`: 32 or 64; a, b, add, and whether b is `down`, are the operands behind them.
#define MIXTAPE_WGMMA(sums, shape_and_types, a, b, add, down, ...)                                        \
  asm volatile("{ .reg .pred p; setp.ne.b32 p, " add ", 0; wgmma.mma_async.sync.aligned." shape_and_types \
               " " MIXTAPE_##sums##_REGISTERS ", " a ", " b ", p, 1, 1, " down "; }"                      \
               : MIXTAPE_##sums##_SUMS                                                                    \
               : __VA_ARGS__)
#define MIXTAPE_WGMMA_OF_MATRICES(types)                                                                            \
  if constexpr (N8 == 8)                                                                                            \
    MIXTAPE_WGMMA(32, "m64n64k16." types, "%32", "%33", "%34", "0, %35", "l"(a), "l"(b), "r"(int(add)), "n"(down)); \
  else                                                                                                              \
    MIXTAPE_WGMMA(64, "m64n128k16." types, "%64", "%65", "%66", "0, %67", "l"(a), "l"(b), "r"(int(add)), "n"(down))
#define MIXTAPE_WGMMA_OF_REGISTERS(types)                                                                     \
  if constexpr (N8 == 8)                                                                                      \
    MIXTAPE_WGMMA(32, "m64n64k16." types, "{%32, %33, %34, %35}", "%36", "%37", "%38", "r"(a[0]), "r"(a[1]),  \
                  "r"(a[2]), "r"(a[3]), "l"(b), "r"(int(add)), "n"(down));                                    \
  else                                                                                                        \
    MIXTAPE_WGMMA(64, "m64n128k16." types, "{%64, %65, %66, %67}", "%68", "%69", "%70", "r"(a[0]), "r"(a[1]), \
                  "r"(a[2]), "r"(a[3]), "l"(b), "r"(int(add)), "n"(down))

template <class T, bool down, int N8>
__device__ inline void wgmma(float (&d)[N8][4], SharedMatrix a, SharedMatrix b, bool add) {
  static_assert(N8 == 8 || N8 == 16);
  if constexpr (dtype_of<T> == DType::bf16) {
    MIXTAPE_WGMMA_OF_MATRICES("f32.bf16.bf16");
  } else {
    MIXTAPE_WGMMA_OF_MATRICES("f32.f16.f16");
  }
}
template <class T, bool down, int N8>
__device__ inline void wgmma(float (&d)[N8][4], const uint32_t (&a)[4], SharedMatrix b, bool add) {
  static_assert(N8 == 8 || N8 == 16);
  if constexpr (dtype_of<T> == DType::bf16) {
    MIXTAPE_WGMMA_OF_REGISTERS("f32.bf16.bf16");
  } else {
    MIXTAPE_WGMMA_OF_REGISTERS("f32.f16.f16");
  }
}

#else

using SharedMatrix = emulator::SharedMatrix;

template <bool down>
SharedMatrix shared_matrix(const void* start, int pane_bytes) {
  return {static_cast<const unsigned char*>(start), unsigned(pane_bytes), 1024, down};
}
inline SharedMatrix moved(SharedMatrix m, int bytes) {
  m.start += bytes;
  return m;
}

template <class... Registers>
void wgmma_fence(Registers&...) {
  emulator::product_fence();
}
inline void wgmma_commit() { emulator::commit_products(); }
template <int groups_in_flight, class A>
void wgmma_wait(A&, MIXTAPE_CALLER) {
  emulator::wait_for_products({"wgmma wait", file, line}, groups_in_flight);
}
template <int groups_in_flight, class A, class B>
void wgmma_wait(A&, B&, MIXTAPE_CALLER) {
  emulator::wait_for_products({"wgmma wait", file, line}, groups_in_flight);
}
template <int groups_in_flight, class A, class B, class C, class D>
void wgmma_wait(A&, B&, C&, D&, MIXTAPE_CALLER) {
  emulator::wait_for_products({"wgmma wait", file, line}, groups_in_flight);
}

// A warp's quarter of a product, summed in the order of k; see mma_m16n8k16.h on how tensor cores may differ.
template <class T>
void wgmma_of_warp(const emulator::Lanes& lanes, size_t i) {
  const auto of = [&](int l) -> emulator::FinishedProducts& { return lanes.operands<emulator::FinishedProducts>(l); };
  const emulator::AsyncProduct& p = of(0).products[i];
  const auto number = [](const void* at) {
    uint16_t code;
    std::memcpy(&code, at, 2);
    return to_float(from_code<T>(code));
  };
  float a[16][16];
  if (p.left) {
    for (int l = 0; l < warp_size; ++l)
      for (int r = 0; r < 4; ++r)
        for (int h = 0; h < 2; ++h)
          a[l / 4 + 8 * (r % 2)][2 * (l % 4) + 8 * (r / 2) + h] =
              to_float(from_code<T>(uint16_t(of(l).products[i].left[r] >> 16 * h)));
  } else {
    for (int m = 0; m < 16; ++m)
      for (int k = 0; k < 16; ++k) a[m][k] = number(p.a.piece(warp_id() % 4 * 16 + m, k / 8) + k % 8 * 2);
  }
  std::vector<float> b(size_t(16 * p.n)), sum(size_t(16 * p.n));
  for (int k = 0; k < 16; ++k)
    for (int n = 0; n < p.n; ++n)
      b[size_t(k * p.n + n)] = number(p.b.down ? p.b.piece(k, n / 8) + n % 8 * 2 : p.b.piece(n, k / 8) + k % 8 * 2);
  for (int m = 0; m < 16; ++m)
    for (int k = 0; k < 16; ++k)
      for (int n = 0; n < p.n; ++n) sum[size_t(m * p.n + n)] += a[m][k] * b[size_t(k * p.n + n)];
  for (int l = 0; l < warp_size; ++l)
    for (int j = 0; j < p.n / 2; ++j) {
      float& d = of(l).sums[i][j];
      d = (p.add ? d : 0.f) + sum[size_t((l / 4 + j % 4 / 2 * 8) * p.n + j / 4 * 8 + l % 4 * 2 + j % 2)];
    }
}

template <class T, bool down, int N8>
void wgmma(float (&d)[N8][4], SharedMatrix a, SharedMatrix b, bool add, MIXTAPE_CALLER) {
  static_assert(N8 == 8 || N8 == 16);
  if (a.down || b.down != down) emulator::fail("wgmma: a matrix that lies the other way");
  emulator::start_product({.place = {"wgmma", file, line},
                           .compute = wgmma_of_warp<T>,
                           .sums = &d[0][0],
                           .n = 8 * N8,
                           .left = nullptr,
                           .a = a,
                           .b = b,
                           .add = add});
}
template <class T, bool down, int N8>
void wgmma(float (&d)[N8][4], const uint32_t (&a)[4], SharedMatrix b, bool add, MIXTAPE_CALLER) {
  static_assert(N8 == 8 || N8 == 16);
  if (b.down != down) emulator::fail("wgmma: a matrix that lies the other way");
  emulator::start_product({.place = {"wgmma", file, line},
                           .compute = wgmma_of_warp<T>,
                           .sums = &d[0][0],
                           .n = 8 * N8,
                           .left = a,
                           .a = {},
                           .b = b,
                           .add = add});
}

#endif

}  // namespace mixtape::cuda
