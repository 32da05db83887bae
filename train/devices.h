// From a configuration to a device: the one place that knows which back ends there are.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/backend.h"
#include "core/communicator.h"
#include "core/exchange.h"
#include "core/model/quantisation.h"
#include "train/config/config.h"

namespace mixtape {

struct DeviceOptions {
  std::string device = "auto";  // auto, cpu, cuda, cuda:N
  int process = 0;              // of this machine's in the run; auto and cuda are its own GPU then, one a process
  int threads = 0;              // of the CPU; 0: one a core
  Determinism determinism = Determinism::fast;
  Auto<bool> cuda_graphs;
  bool tf32 = false;   // of a GPU: products of fp32 by its tensor cores
  bool cudnn = false;  // of a GPU: attention by cuDNN
};
DeviceOptions device_options(const Config& config, const Communicator& ranks = single_process());

// Throws ConfigError for a device that this build or machine does not have.
std::unique_ptr<Backend> make_backend(const DeviceOptions& options);

// What exchanges the memory of this back end with the ranks; null where that is the host's. All ranks make it together.
std::unique_ptr<Exchange> make_exchange(Backend& backend, Communicator& ranks);

// The GPUs that this build can use on this machine; if there are none, why.
struct Gpus {
  std::vector<std::string> names;
  std::string none_because;
};
Gpus find_gpus();

// What check() may allow.
BuildFeatures build_features();

// How a precision mode is stored: the type of weights and activations, and what the optimizer keeps beside them.
struct ComputeTypes {
  DType compute = DType::f32;
  MasterWeights master = MasterWeights::none;
};
ComputeTypes compute_types(const PrecisionConfig& precision);
// What layers round beyond that.
QuantisationSpec quantisation_of(const PrecisionConfig& precision);

}  // namespace mixtape
