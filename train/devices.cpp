#include "train/devices.h"

#include "core/cpu/backend.h"
#include "train/device_memory.h"
#if MIXTAPE_CUDA
#include "cuda/backend.h"
#include "cuda/exchange.h"
#include "cuda/memory_use.h"
#include "train/report/console.h"
#endif

namespace mixtape {

// Exchanges beside the computing are no part of a graph, and neither is the way of offloaded state.
DeviceOptions device_options(const Config& config, const Communicator& ranks) {
  return {.device = config.device,
          .threads = int(config.runtime.threads.value_or(0)),
          .determinism = config.determinism,
          .cuda_graphs = ranks.size() > 1 || config.memory.offload != OffloadMode::none ? Auto<bool>(false)
                                                                                        : config.runtime.cuda_graphs,
          .tf32 = config.precision.mode == PrecisionMode::tf32,
          .cudnn = config.attention.implementation == AttentionImplementation::cudnn};
}

#if MIXTAPE_CUDA
namespace {

// N of "cuda:N".
int number_of(const std::string& device, int process) {
  if (device == "auto" || device == "cuda") return process;
  const std::string digits = device.substr(std::min<size_t>(device.size(), 5));
  if (!device.starts_with("cuda:") || digits.empty() || digits.size() > 3 ||
      digits.find_first_not_of("0123456789") != digits.npos)
    throw ConfigError("device: {}, expected auto, cpu, cuda or cuda:N", device);
  return std::stoi(digits);
}

std::unique_ptr<Backend> make_cuda(const DeviceOptions& options) {
  const int device = number_of(options.device, options.process);
  const Gpus gpus = find_gpus();
  if (gpus.names.empty())
    throw ConfigError("device: {}, but no GPU can be used: {}; set device: cpu or auto", options.device,
                      gpus.none_because);
  if (device >= int(gpus.names.size()) && !options.device.starts_with("cuda:"))
    throw ConfigError("device: {}, but this machine has {} GPUs and at least {} processes of this run; start one a GPU",
                      options.device, gpus.names.size(), device + 1);
  if (device >= int(gpus.names.size()))
    throw ConfigError("device: {}, but the last GPU of this machine is cuda:{}", options.device, gpus.names.size() - 1);
  const bool must = options.cuda_graphs.value_or(false);
  const auto refused = [must](const std::string& why) {
    if (must) throw ConfigError("runtime.cuda_graphs: true, but a step cannot be recorded: {}; set it to auto", why);
    console().warn(fmt::format("a step is not run as a CUDA graph: {}", why));
  };
  return std::make_unique<CudaBackend>(CudaOptions{.device = device,
                                                   .graphs = options.cuda_graphs.value_or(true),
                                                   .graphs_refused = refused,
                                                   .tf32 = options.tf32,
                                                   .cudnn = options.cudnn});
}

}  // namespace

std::unique_ptr<Exchange> make_exchange(Backend& backend, Communicator& ranks) {
  auto* const gpu = dynamic_cast<CudaBackend*>(&backend);
  return gpu ? std::make_unique<cuda::QueuedExchange>(gpu->runtime(), ranks) : nullptr;
}

std::optional<int64_t> device_memory_in_use(const DeviceOptions& options) {
  if (options.device == "cpu" || (options.device == "auto" && find_gpus().names.empty())) return {};
  return cuda::memory_in_use(number_of(options.device, options.process));
}

Gpus find_gpus() {
  const cuda::Devices devices = cuda::find_devices();
  return {devices.names, devices.none_because};
}
#else
namespace {

std::unique_ptr<Backend> make_cuda(const DeviceOptions& options) {
  throw ConfigError("device: {}, but {}; set device: cpu or auto", options.device, find_gpus().none_because);
}

}  // namespace

std::unique_ptr<Exchange> make_exchange(Backend&, Communicator&) { return nullptr; }

std::optional<int64_t> device_memory_in_use(const DeviceOptions&) { return {}; }

Gpus find_gpus() { return {.names = {}, .none_because = "this build has no CUDA back end"}; }
#endif

BuildFeatures build_features() { return {.cuda = bool(MIXTAPE_CUDA)}; }

std::unique_ptr<Backend> make_backend(const DeviceOptions& options) {
  const std::string& device = options.device;
  if (device == "cpu" || (device == "auto" && find_gpus().names.empty())) {
    if (options.cudnn) throw ConfigError("attention.implementation: cudnn, but this runs on the CPU; set it to native");
    return std::make_unique<CpuBackend>(CpuOptions{.threads = options.threads, .determinism = options.determinism});
  }
  if (device == "auto" || device.starts_with("cuda")) return make_cuda(options);
  throw ConfigError("device: {}, expected auto, cpu, cuda or cuda:N", device);
}

ComputeTypes compute_types(const PrecisionConfig& precision) {
  switch (precision.mode) {
    case PrecisionMode::fp16:
      return {DType::f16, precision.master};
    case PrecisionMode::bf16:
    case PrecisionMode::fp8:
    case PrecisionMode::int8_qat:
      return {DType::bf16, precision.master};
    case PrecisionMode::fp32:
    case PrecisionMode::tf32:
      break;
  }
  return {DType::f32, MasterWeights::none};
}

QuantisationSpec quantisation_of(const PrecisionConfig& precision) {
  if (precision.mode == PrecisionMode::int8_qat) return {.kind = QuantisationSpec::int8};
  if (precision.mode != PrecisionMode::fp8) return {};
  return {.kind = QuantisationSpec::fp8, .history = precision.fp8.amax_history, .margin = int(precision.fp8.margin)};
}

}  // namespace mixtape
