// What makers promise of their GPUs, and the share of it that training uses.
#pragma once

#include <cstdint>
#include <string_view>

#include "core/model/spec.h"
#include "train/config/precision.h"

namespace mixtape {

// Of one GPU: multiplications and additions a second of dense matrix products, sums in float32, and bytes a second of
// its memory. Source: NVIDIA's data sheets, half of what they say with sparsity.
struct DevicePeak {
  std::string_view device;  // as the driver names it
  double half = 0, tf32 = 0, fp32 = 0, memory = 0;
};
// `name` may be a back end's, such as "cuda:0 (NVIDIA H200)". Null for a device that is not in the table: neighbours
// with similar names (laptops, other boards) are slower.
const DevicePeak* peak_of(std::string_view name);
double peak_flops(const DevicePeak& peak, PrecisionMode mode);

// What training does for a token in the count that published figures use: 6 N + 12 L H Q T, of N parameters, L layers
// of H heads of width Q, and T tokens, all of which each token is taken to see. 0 for encoder-decoders, for which
// nobody agrees on one. Source: PaLM, arXiv 2204.02311, appendix B.
double published_flops_per_token(const ModelSpec& spec, int64_t parameters, int64_t length);

}  // namespace mixtape
