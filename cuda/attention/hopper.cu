// Launches the kernels for Hopper, of which other GPUs' code is empty; attention.cu asks for them where there is one.
#include "cuda/attention/hopper_backward.h"
#include "cuda/attention/hopper_forward.h"

namespace mixtape::cuda {
namespace {

// body.operator()<D, dropout>(): the width that heads are padded to, and whether weights are dropped. Without dropout
// the kernels need no local memory.
template <class T, class Body>
void dispatch_kernel(const AttentionArguments<T>& a, Body&& body) {
  const auto with_width = [&]<int D>() {
    if (a.dropout.threshold) return body.template operator()<D, true>();
    body.template operator()<D, false>();
  };
  if (a.head_dim <= 64) return with_width.template operator()<64>();
  with_width.template operator()<128>();
}

// A block a multiprocessor, as there is shared memory for; they share the pairs of a tile and a head.
dim3 blocks_of(Runtime& runtime, int64_t rows, int64_t segments, int64_t heads) {
  const int64_t pairs = most_tiles(rows, segments, hopper_rows) * heads;
  return dim3(unsigned(std::clamp<int64_t>(pairs, 1, runtime.multiprocessors())));
}

template <class T>
HopperBackward<T> with_maps(const AttentionBackwardArguments<T>& a, const AttentionBackward& t) {
  return {.q = tensor_map(t.q, a.head_dim, box_rows),
          .k = tensor_map(t.k, a.head_dim, box_rows),
          .v = tensor_map(t.v, a.head_dim, box_rows),
          .dout = tensor_map(t.dout, a.head_dim, box_rows),
          .a = a};
}

}  // namespace

template <class T>
void launch_hopper_forward(Runtime& runtime, const AttentionArguments<T>& a, const Attention& t) {
  const HopperForward<T> h{.q = tensor_map(t.q, a.head_dim, box_rows),
                           .k = tensor_map(t.k, a.head_dim, box_rows),
                           .v = tensor_map(t.v, a.head_dim, box_rows),
                           .a = a};
  dispatch_kernel(a, [&]<int D, bool dropout>() {
    launch(runtime, hopper_forward_kernel<D, dropout, T>, blocks_of(runtime, t.q.rows(), t.segments.rows(), a.n_heads),
           dim3(hopper_threads), sizeof(HopperForwardStorage<D, T>), h);
  });
}

template <class T>
void launch_hopper_dq(Runtime& runtime, const AttentionBackwardArguments<T>& a, const AttentionBackward& t) {
  dispatch_kernel(a, [&]<int D, bool dropout>() {
    launch(runtime, hopper_dq_kernel<D, dropout, T>, blocks_of(runtime, t.q.rows(), t.segments.rows(), a.n_heads),
           dim3(hopper_threads), sizeof(HopperBackwardStorage<D, T>), with_maps(a, t));
  });
}

template <class T>
void launch_hopper_dkv(Runtime& runtime, const AttentionBackwardArguments<T>& a, const AttentionBackward& t) {
  dispatch_kernel(a, [&]<int D, bool dropout>() {
    launch(runtime, hopper_dkv_kernel<D, dropout, T>, blocks_of(runtime, t.k.rows(), t.segments.rows(), a.n_kv_heads),
           dim3(hopper_threads), sizeof(HopperBackwardStorage<D, T>), with_maps(a, t));
  });
}

#define MIXTAPE_HOPPER(T)                                                                                      \
  template void launch_hopper_forward<T>(Runtime&, const AttentionArguments<T>&, const Attention&);            \
  template void launch_hopper_dq<T>(Runtime&, const AttentionBackwardArguments<T>&, const AttentionBackward&); \
  template void launch_hopper_dkv<T>(Runtime&, const AttentionBackwardArguments<T>&, const AttentionBackward&)
MIXTAPE_HOPPER(fp16);
MIXTAPE_HOPPER(bf16);
#undef MIXTAPE_HOPPER

}  // namespace mixtape::cuda
