// In the place of nccl.cpp where NCCL's header was not found.
#include "core/base/error.h"
#include "cuda/collectives.h"

namespace mixtape::cuda {

struct Collectives::State {};

Collectives::Collectives(Runtime&, Communicator&) {
  std::string missing;
  version(missing);
  throw ConfigError("several GPUs: {}", missing);
}
Collectives::~Collectives() = default;
void Collectives::all_reduce(float*, int64_t) {}
void Collectives::all_reduce(int64_t*, int64_t) {}
void Collectives::largest(int32_t*, int64_t) {}
void Collectives::all_to_all(const float*, std::span<const int64_t>, float*) {}
void Collectives::reduce_scatter(const float*, std::span<const int64_t>, float*) {}
void Collectives::all_gather(std::byte*, std::span<const int64_t>) {}
std::string Collectives::fault() { return {}; }

std::string Collectives::version(std::string& missing) {
  missing = "this build is without NCCL: install libnccl-dev, which has nccl.h, and build again";
  return {};
}

}  // namespace mixtape::cuda
