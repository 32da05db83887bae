#include "train/bench/peaks.h"

namespace mixtape {
namespace {

constexpr double T = 1e12;

constexpr DevicePeak peaks[] = {
    {"NVIDIA A100-PCIE-40GB", 312 * T, 156 * T, 19.5 * T, 1.555 * T},
    {"NVIDIA A100-SXM4-40GB", 312 * T, 156 * T, 19.5 * T, 1.555 * T},
    {"NVIDIA A100 80GB PCIe", 312 * T, 156 * T, 19.5 * T, 1.935 * T},
    {"NVIDIA A100-SXM4-80GB", 312 * T, 156 * T, 19.5 * T, 2.039 * T},
    {"NVIDIA H100 PCIe", 756 * T, 378 * T, 51 * T, 2.0 * T},
    {"NVIDIA H100 NVL", 835 * T, 417.5 * T, 60 * T, 3.9 * T},
    {"NVIDIA H100 80GB HBM3", 989 * T, 494.5 * T, 67 * T, 3.35 * T},
    {"NVIDIA H200", 989 * T, 494.5 * T, 67 * T, 4.8 * T},
    {"NVIDIA H200 NVL", 835 * T, 417.5 * T, 60 * T, 4.8 * T},
    {"NVIDIA L40S", 362 * T, 183 * T, 91.6 * T, 0.864 * T},
    // Of these two tensor cores add fp16 and bf16 in float32 at half of the rate of sums in fp16.
    {"NVIDIA GeForce RTX 4090", 165.2 * T, 82.6 * T, 82.6 * T, 1.008 * T},
    {"NVIDIA GeForce RTX 5090", 209.5 * T, 104.8 * T, 104.8 * T, 1.792 * T},
    {"NVIDIA B200", 2250 * T, 1125 * T, 75 * T, 8.0 * T},
};

}  // namespace

const DevicePeak* peak_of(std::string_view name) {
  if (const size_t open = name.find('('); open != name.npos) {
    name.remove_prefix(open + 1);
    name = name.substr(0, name.rfind(')'));
  }
  for (const DevicePeak& peak : peaks)
    if (peak.device == name) return &peak;
  return nullptr;
}

double peak_flops(const DevicePeak& peak, PrecisionMode mode) {
  if (mode == PrecisionMode::fp32) return peak.fp32;
  return mode == PrecisionMode::tf32 ? peak.tf32 : peak.half;
}

double published_flops_per_token(const ModelSpec& spec, int64_t parameters, int64_t length) {
  if (spec.family == Family::encoder_decoder) return 0;
  const double width = double(spec.n_heads * spec.head_width());
  return 6 * double(parameters) + 12 * double(spec.n_layers) * width * double(length);
}

}  // namespace mixtape
