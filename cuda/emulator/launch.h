// A launch, as the host's compiler sees it: every thread of every block calls the kernel with the same arguments.
#pragma once

#include <cstddef>
#include <tuple>
#include <type_traits>

#include "cuda/emulator/threads.h"

namespace mixtape::emulator {

template <class... P>
struct Call {
  void (*kernel)(P...);
  std::tuple<P...> arguments;
};

template <class... P>
void launch(void (*kernel)(P...), dim3 grid, dim3 threads, size_t shared_bytes, std::type_identity_t<P>... arguments) {
  const Call<P...> call{kernel, {arguments...}};
  run_grid(
      grid, threads, shared_bytes,
      [](const void* c) {
        const auto& call = *static_cast<const Call<P...>*>(c);
        std::apply(call.kernel, call.arguments);
      },
      &call);
}

}  // namespace mixtape::emulator
