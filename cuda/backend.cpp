#include "cuda/backend.h"

#include "cuda/feed.h"
#include "cuda/offload.h"
#include "cuda/offload_to_disk.h"

namespace mixtape {

CudaBackend::CudaBackend(const CudaOptions& options)
    : runtime_(options.device), products_(runtime_, {.tf32 = options.tf32}), marks_(runtime_) {
  if (options.graphs) repeater_.emplace(runtime_, options.graphs_refused);
  if (options.cudnn) cudnn_ = std::make_unique<cuda::Cudnn>(*this);
}

std::byte* CudaBackend::reserve(int64_t bytes) { return static_cast<std::byte*>(runtime_.allocate(bytes)); }

void CudaBackend::copy_from_host(const Tensor& to, const void* from) {
  if (planning()) return;
  runtime_.copy_to_device(to.raw(), from, to.bytes());
}

void CudaBackend::copy_to_host(void* to, const Tensor& from) {
  if (planning()) return;
  runtime_.copy_to_host(to, from.raw(), from.bytes());
}

void CudaBackend::copy(const Tensor& to, const Tensor& from) {
  if (planning()) return;
  runtime_.copy(to.raw(), from.raw(), from.bytes());
}

void CudaBackend::zero(const Tensor& tensor) {
  if (planning()) return;
  runtime_.zero(tensor.raw(), tensor.bytes());
}

std::unique_ptr<Feed> CudaBackend::feed(const Tensor& block) {
  return std::make_unique<cuda::DoubleFeed>(*this, runtime_, block);
}

std::unique_ptr<Offload> CudaBackend::offload(const OffloadRoom& room) {
  if (room.place.on_disk) return std::make_unique<cuda::OffloadToDisk>(runtime_, room);
  return std::make_unique<cuda::PinnedOffload>(runtime_, room);
}

void CudaBackend::repeat(int id, const std::function<void()>& work) {
  if (!repeater_ || planning()) return work();
  repeater_->repeat(id, arena().in_use(), work);
}

}  // namespace mixtape
