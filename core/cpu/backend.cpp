#include "core/cpu/backend.h"

#include <cstring>

#include "core/cpu/gemm_choices.h"
#include "core/cpu/parallel.h"
#include "core/offload_file.h"

namespace mixtape {

CpuBackend::CpuBackend(CpuOptions options) : options_(options) {
  set_thread_count(options.threads > 0 ? options.threads : omp_get_num_procs());
}

std::string CpuBackend::name() const { return "cpu"; }

std::byte* CpuBackend::reserve(int64_t bytes) { return memory_.emplace_back(bytes).data(); }

void CpuBackend::copy_from_host(const Tensor& to, const void* from) {
  if (planning()) return;
  std::memcpy(to.raw(), from, to.bytes());
}

void CpuBackend::copy_to_host(void* to, const Tensor& from) {
  if (planning()) return;
  std::memcpy(to, from.raw(), from.bytes());
}

void CpuBackend::copy(const Tensor& to, const Tensor& from) {
  if (planning()) return;
  parallel_for(from.bytes(), 1 << 20,
               [&](int64_t begin, int64_t end) { std::memcpy(to.raw() + begin, from.raw() + begin, end - begin); });
}

std::unique_ptr<Offload> CpuBackend::offload(const OffloadRoom& room) { return std::make_unique<OffloadFile>(room); }

// In strict mode nothing is timed, so there is nothing to keep.
std::string CpuBackend::choices() const {
  return options_.determinism == Determinism::strict ? std::string() : matmul_choices();
}

void CpuBackend::set_choices(const std::string& text) {
  if (options_.determinism != Determinism::strict) set_matmul_choices(text);
}

void CpuBackend::zero(const Tensor& tensor) {
  if (planning()) return;
  std::byte* data = tensor.raw();
  parallel_for(tensor.bytes(), 1 << 20, [&](int64_t begin, int64_t end) { std::memset(data + begin, 0, end - begin); });
}

}  // namespace mixtape
