#include "cuda/backend.h"

namespace mixtape {

CudaBackend::CudaBackend(int device) : runtime_(device), products_(runtime_) {}

std::byte* CudaBackend::reserve(int64_t bytes) { return static_cast<std::byte*>(runtime_.allocate(bytes)); }

void CudaBackend::copy_from_host(const Tensor& to, const void* from) {
  if (planning()) return;
  runtime_.copy_to_device(to.raw(), from, to.bytes());
}

void CudaBackend::copy_to_host(void* to, const Tensor& from) {
  if (planning()) return;
  runtime_.copy_to_host(to, from.raw(), from.bytes());
}

void CudaBackend::zero(const Tensor& tensor) {
  if (planning()) return;
  runtime_.zero(tensor.raw(), tensor.bytes());
}

}  // namespace mixtape
