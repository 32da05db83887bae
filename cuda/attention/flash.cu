// Launches the kernels on tensor cores by mma.sync; attention.cu asks for them.
#include "cuda/attention/flash.h"

#include "cuda/attention/flash_backward.h"
#include "cuda/attention/flash_forward.h"

namespace mixtape::cuda {
namespace {

// body.operator()<D>(): the width that heads are padded to.
template <class Body>
void dispatch_width(int head_dim, Body&& body) {
  if (head_dim <= 64) return body.template operator()<64>();
  body.template operator()<128>();
}

}  // namespace

template <class T>
void launch_flash_forward(Runtime& runtime, const AttentionArguments<T>& a, unsigned blocks) {
  dispatch_width(a.head_dim, [&]<int D>() {
    launch(runtime, a.dropout.threshold ? flash_forward_kernel<D, true, T> : flash_forward_kernel<D, false, T>,
           dim3(blocks, unsigned(a.n_heads)), dim3(flash_threads), sizeof(FlashForwardStorage<D, T>), a);
  });
}

template <class T>
void launch_flash_dq(Runtime& runtime, const AttentionBackwardArguments<T>& a, unsigned blocks) {
  dispatch_width(a.head_dim, [&]<int D>() {
    launch(runtime, flash_dq_kernel<D, T>, dim3(blocks, unsigned(a.n_heads)), dim3(flash_threads),
           sizeof(FlashQueries<D, T>), a);
  });
}

template <class T>
void launch_flash_dkv(Runtime& runtime, const AttentionBackwardArguments<T>& a, unsigned blocks) {
  dispatch_width(a.head_dim, [&]<int D>() {
    launch(runtime, flash_dkv_kernel<D, T>, dim3(blocks, unsigned(a.n_kv_heads)), dim3(flash_threads),
           sizeof(FlashKeys<D, T>), a);
  });
}

#define MIXTAPE_FLASH(T)                                                                      \
  template void launch_flash_forward<T>(Runtime&, const AttentionArguments<T>&, unsigned);    \
  template void launch_flash_dq<T>(Runtime&, const AttentionBackwardArguments<T>&, unsigned); \
  template void launch_flash_dkv<T>(Runtime&, const AttentionBackwardArguments<T>&, unsigned)
MIXTAPE_FLASH(fp16);
MIXTAPE_FLASH(bf16);
#undef MIXTAPE_FLASH

}  // namespace mixtape::cuda
