#include "train/devices.h"

#include "core/cpu/backend.h"

namespace mixtape {

DeviceOptions device_options(const Config& config) {
  return {
      .device = config.device, .threads = int(config.runtime.threads.value_or(0)), .determinism = config.determinism};
}

std::unique_ptr<Backend> make_backend(const DeviceOptions& options) {
  if (options.device == "auto" || options.device == "cpu")
    return std::make_unique<CpuBackend>(CpuOptions{.threads = options.threads, .determinism = options.determinism});
  throw ConfigError("device: {}, but this build has the CPU only; set device: cpu or auto", options.device);
}

ComputeTypes compute_types(const PrecisionConfig& precision) {
  switch (precision.mode) {
    case PrecisionMode::fp16:
      return {DType::f16, true};
    case PrecisionMode::bf16:
      return {DType::bf16, true};
    case PrecisionMode::fp32:
    case PrecisionMode::tf32:
      return {DType::f32, false};
    default:
      throw ConfigError("precision.mode: fp8 and int8_qat are not available in this version");
  }
}

}  // namespace mixtape
