// The update of flat buffers by a rule that treats each element alone: a warp takes a block of 256 elements, a lane
// eight that follow each other. What is narrower than float32 is widened into registers, updated there, and written
// back.
//
// One kernel for each rule: the formats of buffers are the same for all threads, so that the branches over them cost
// little beside the memory, which binds.
#pragma once

#include "core/ops/optimizer.h"
#include "core/step_state.h"
#include "cuda/device/moment_codes.h"
#include "cuda/device/reduce.h"
#include "cuda/launch.h"

namespace mixtape::cuda {

constexpr int update_threads = 256, elements_of_lane = int(moment_block) / warp_size;
constexpr int64_t update_piece = update_threads / warp_size * moment_block;  // elements of a thread block

// A flat buffer, or none.
struct Flat {
  std::byte* data = nullptr;
  DType type = DType::f32;
  float* scales = nullptr;  // of blocks

  Flat() = default;
  Flat(const Tensor& t) : data(t.raw()), type(t.dtype()) {}                      // NOLINT
  Flat(const Moment& m) : Flat(m.values) { scales = data_of<float>(m.scales); }  // NOLINT
};

struct UpdateBuffers {
  const StepState* state;
  const UpdateRange* ranges;
  Flat weights, master, gradients, m, v;
  uint64_t seed;
};

// Eight elements, of which `n` are there; the others are 0 and not written.
using Eight = float[elements_of_lane];

// In one piece where all are there and lie where they can be.
template <class T>
__device__ inline bool in_one_piece(const T* at, int n) {
  return n == elements_of_lane && reinterpret_cast<uintptr_t>(at) % alignof(Vec<T, elements_of_lane>) == 0;
}
template <class T, class Body>
__device__ inline void each_read(const T* from, int n, Body body) {
  if (in_one_piece(from, n)) {
    const auto held = *reinterpret_cast<const Vec<T, elements_of_lane>*>(from);
#pragma unroll
    for (int j = 0; j < elements_of_lane; ++j) body(j, held.v[j]);
  } else {
    for (int j = 0; j < n; ++j) body(j, from[j]);
  }
}
template <class T, class Body>
__device__ inline void each_written(T* to, int n, Body body) {
  if (in_one_piece(to, n)) {
    Vec<T, elements_of_lane> held;
#pragma unroll
    for (int j = 0; j < elements_of_lane; ++j) held.v[j] = body(j);
    *reinterpret_cast<Vec<T, elements_of_lane>*>(to) = held;
  } else {
    for (int j = 0; j < n; ++j) to[j] = body(j);
  }
}

template <class T>
__device__ inline T* of(const Flat& f, int64_t at) {
  return reinterpret_cast<T*>(f.data) + at;
}

template <class T>
__device__ inline void read_as(Eight& x, const Flat& f, int64_t at, int n) {
  each_read(of<T>(f, at), n, [&](int j, T value) { x[j] = to_float(value); });
}
template <class Codes>
__device__ inline void read_codes(Eight& x, const Flat& f, int64_t at, int n) {
  const float scale = f.scales[at / moment_block];
  each_read(of<typename Codes::Code>(f, at), n,
            [&](int j, typename Codes::Code code) { x[j] = Codes::decode(code) * scale; });
}

__device__ inline void read(Eight& x, const Flat& f, int64_t at, int n) {
  for (float& value : x) value = 0;
  if (!f.data || n == 0) return;
  switch (f.type) {
    case DType::f32:
      return read_as<float>(x, f, at, n);
    case DType::f16:
      return read_as<fp16>(x, f, at, n);
    case DType::bf16:
      return read_as<bf16>(x, f, at, n);
    case DType::i8:
      return read_codes<SignedSquare>(x, f, at, n);
    case DType::u8:
      return read_codes<FourthPower>(x, f, at, n);
    case DType::e4m3:
      return read_codes<Float8<e4m3, false>>(x, f, at, n);
    case DType::e5m2:
      return read_codes<Float8<e5m2, true>>(x, f, at, n);
    default:
      require(false, "update: a buffer's type");
  }
}

// Where random numbers of eight elements of a parameter come from.
struct Draws {
  PhiloxKey key;
  uint32_t parameter;
  uint64_t element;  // the first

  // body(j, word): 16 bits that belong to element j for rounding its weight, 32 for its moments.
  template <class Body>
  __device__ void weights(Body body) const {
    auto draw = rounding_draw(key, parameter, element);
#pragma unroll
    for (int j = 0; j < elements_of_lane; ++j) {
      if (j > 0 && (element + j) % roundings_a_draw == 0) draw = rounding_draw(key, parameter, element + j);
      body(j, rounding_bits(draw, element + j));
    }
  }
  template <class Body>
  __device__ void moments(Body body) const {
    auto draw = moments_draw(key, parameter, element);
#pragma unroll
    for (int j = 0; j < elements_of_lane; ++j) {
      if (j > 0 && (element + j) % moments_a_draw == 0) draw = moments_draw(key, parameter, element + j);
      // Not by an index, which would put the words into memory.
      const uint64_t which = (element + j) % moments_a_draw;
      body(j, which < 2 ? (which == 0 ? draw[0] : draw[1]) : (which == 2 ? draw[2] : draw[3]));
    }
  }
};

// The whole warp. A block's scale is written when all lanes have read the one before.
template <class Codes>
__device__ inline void write_codes(const Eight& x, const Flat& f, int64_t at, int n, const uint32_t (&random)[8]) {
  using Code = typename Codes::Code;
  float most = 0;
  for (int j = 0; j < n; ++j) most = fmaxf(most, fabsf(x[j]));
  const float largest = fminf(warp_max(most), 3.402823466e38f);
  // What is not a normal number has no reciprocal, and is as good as 0.
  const bool none = largest / Codes::top < 1.17549435e-38f;
  const float factor = none ? 0 : Codes::top / largest;
  if (lane_id() == 0) f.scales[at / moment_block] = none ? 0 : largest / Codes::top;
  if (n == 0) return;
  each_written(of<Code>(f, at), n, [&](int j) {
    return Codes::encode(copysignf(fminf(fabsf(x[j]) * factor, Codes::top), x[j]), random[j]);
  });
}

__device__ inline void write_moment(const Eight& x, const Flat& f, int64_t at, int n, const uint32_t (&random)[8]) {
  if (!f.data) return;
  switch (f.type) {
    case DType::f32:
      return each_written(of<float>(f, at), n, [&](int j) { return x[j]; });
    case DType::bf16:
      return each_written(of<bf16>(f, at), n, [&](int j) { return round_stochastically<bf16>(x[j], random[j]); });
    case DType::i8:
      return write_codes<SignedSquare>(x, f, at, n, random);
    case DType::u8:
      return write_codes<FourthPower>(x, f, at, n, random);
    case DType::e4m3:
      return write_codes<Float8<e4m3, false>>(x, f, at, n, random);
    case DType::e5m2:
      return write_codes<Float8<e5m2, true>>(x, f, at, n, random);
    default:
      require(false, "update: a moment's type");
  }
}

__device__ inline void read_weights(Eight& w, const UpdateBuffers& b, int64_t at, int n) {
  if (!b.master.data) return read(w, b.weights, at, n);
  if (b.master.type == DType::f32) return read(w, b.master, at, n);
  for (float& value : w) value = 0;
  for (int j = 0; j < n; ++j) w[j] = master_of(of<bf16>(b.weights, at)[j], of<uint16_t>(b.master, at)[j]);
}

template <class T>
__device__ inline void write_narrow(const Eight& w, const UpdateBuffers& b, int64_t at, int n, const Draws& draws) {
  if (b.master.data) return each_written(of<T>(b.weights, at), n, [&](int j) { return rounded_weight<T>(w[j]); });
  uint32_t random[elements_of_lane];
  draws.weights([&](int j, uint32_t bits) { random[j] = bits; });
  each_written(of<T>(b.weights, at), n, [&](int j) { return round_stochastically<T>(w[j], random[j]); });
}

__device__ inline void write_weights(const Eight& w, const UpdateBuffers& b, int64_t at, int n, const Draws& draws) {
  if (b.master.data && b.master.type == DType::u16)
    each_written(of<uint16_t>(b.master, at), n, [&](int j) { return remainder_of(w[j]); });
  if (b.master.data && b.master.type == DType::f32)
    each_written(of<float>(b.master, at), n, [&](int j) { return w[j]; });
  switch (b.weights.type) {
    case DType::f32:
      return each_written(of<float>(b.weights, at), n, [&](int j) { return w[j]; });
    case DType::f16:
      return write_narrow<fp16>(w, b, at, n, draws);
    case DType::bf16:
      return write_narrow<bf16>(w, b, at, n, draws);
    default:
      require(false, "update: the weights' type");
  }
}

// Thread block (range, piece of it). rule.of(state, range) is what does an element: (float& w, float g, float& m,
// float& v), of which the moments are 0 where there are none.
template <class Rule>
__global__ void __launch_bounds__(update_threads) update_kernel(UpdateBuffers b, Rule rule) {
  if (!b.state->finite) return;
  const UpdateRange range = b.ranges[blockIdx.x];
  const int64_t begin = blockIdx.y * update_piece + warp_id() * moment_block;
  if (begin >= range.count) return;  // the whole warp leaves together
  const int64_t mine = begin + lane_id() * elements_of_lane, at = range.offset + mine;
  const int n = int(std::clamp<int64_t>(range.count - mine, 0, elements_of_lane));
  Eight w, g, m, v;
  read_weights(w, b, at, n);
  read(g, b.gradients, at, n);
  read(m, b.m, at, n);
  read(v, b.v, at - range.v_shift, n);
  const auto step = rule.of(*b.state, range);
#pragma unroll
  for (int j = 0; j < elements_of_lane; ++j) step(w[j], g[j], m[j], v[j]);
  const Draws draws{rounding_key(b.seed, b.state->attempts), range.parameter, uint64_t(range.first + mine)};
  if ((b.m.data && b.m.type != DType::f32) || (b.v.data && b.v.type != DType::f32)) {
    uint32_t of_m[elements_of_lane], of_v[elements_of_lane];
    draws.moments([&](int j, uint32_t word) { of_m[j] = word & 0xffff, of_v[j] = word >> 16; });
    write_moment(m, b.m, at, n, of_m);
    write_moment(v, b.v, at - range.v_shift, n, of_v);
  } else {
    constexpr uint32_t unused[elements_of_lane] = {};
    write_moment(m, b.m, at, n, unused);
    write_moment(v, b.v, at - range.v_shift, n, unused);
  }
  write_weights(w, b, at, n, draws);
}

// The list of ranges in device memory: copied at each call, some tens of kilobytes.
inline const UpdateRange* upload(CudaBackend& backend, const Tensor& to, const UpdateRange* ranges, int64_t n) {
  backend.runtime().copy_to_device(to.raw(), ranges, n * int64_t(sizeof(UpdateRange)));
  return reinterpret_cast<const UpdateRange*>(to.raw());
}
inline Tensor room_for_ranges(CudaBackend& backend, int64_t n) {
  return backend.workspace({std::max<int64_t>(n, 1) * int64_t(sizeof(UpdateRange))}, DType::u8);
}

// `table`: room_for_ranges.
template <class Rule>
void update(CudaBackend& backend, const Tensor& table, UpdateBuffers buffers, const UpdateRange* ranges,
            int64_t n_ranges, const Rule& rule) {
  buffers.ranges = upload(backend, table, ranges, n_ranges);
  int64_t longest = 1;
  for (int64_t r = 0; r < n_ranges; ++r) longest = std::max(longest, ranges[r].count);
  launch(backend.runtime(), update_kernel<Rule>, dim3(unsigned(n_ranges), unsigned(divide_up(longest, update_piece))),
         dim3(update_threads), 0, buffers, rule);
}

}  // namespace mixtape::cuda
