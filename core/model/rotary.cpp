#include "core/model/rotary.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace mixtape {
namespace {

constexpr double two_pi = 2 * std::numbers::pi;

std::vector<double> plain(double theta, int64_t dim) {
  std::vector<double> f(dim / 2);
  for (int64_t c = 0; c < dim / 2; ++c) f[c] = std::pow(theta, -2.0 * double(c) / double(dim));
  return f;
}

// Frequencies that turn less than low_freq_factor times in the original context are divided by the factor, those that
// turn more than high_freq_factor times are kept, and those between are blended.
void scale_llama3(std::vector<double>& f, const RopeScaling& s) {
  for (double& frequency : f) {
    const double rotations = double(s.original_max_positions) * frequency / two_pi;
    const double keep =
        std::clamp((rotations - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor), 0.0, 1.0);
    frequency = keep * frequency + (1 - keep) * frequency / s.factor;
  }
}

// The column whose frequency turns `rotations` times in the original context.
double yarn_column(double rotations, const RopeScaling& s, double theta, int64_t dim) {
  return double(dim) * std::log(double(s.original_max_positions) / (rotations * two_pi)) / (2 * std::log(theta));
}

void scale_yarn(std::vector<double>& f, const RopeScaling& s, double theta, int64_t dim) {
  const double low = std::max(std::floor(yarn_column(s.beta_fast, s, theta, dim)), 0.0);
  double high = std::min(std::ceil(yarn_column(s.beta_slow, s, theta, dim)), double(dim - 1));
  if (low == high) high += 0.001;
  for (size_t c = 0; c < f.size(); ++c) {
    const double scaled = std::clamp((double(c) - low) / (high - low), 0.0, 1.0);
    f[c] = scaled * f[c] / s.factor + (1 - scaled) * f[c];
  }
}

}  // namespace

RotaryFrequencies rotary_frequencies(const ModelSpec& spec, int64_t dim, int64_t length) {
  const RopeScaling& s = spec.rope_scaling;
  RotaryFrequencies result{.inverse = plain(spec.rope_theta, dim)};
  switch (s.type) {
    case RopeScalingKind::none:
      break;
    case RopeScalingKind::linear:
      for (double& f : result.inverse) f /= s.factor;
      break;
    case RopeScalingKind::dynamic:
      if (length > spec.max_positions) {
        const double stretch = s.factor * double(length) / double(spec.max_positions) - (s.factor - 1);
        result.inverse = plain(spec.rope_theta * std::pow(stretch, double(dim) / double(dim - 2)), dim);
      }
      break;
    case RopeScalingKind::yarn:
      scale_yarn(result.inverse, s, spec.rope_theta, dim);
      result.attention_factor = s.attention_factor > 0 ? s.attention_factor : 0.1 * std::log(s.factor) + 1;
      break;
    case RopeScalingKind::llama3:
      scale_llama3(result.inverse, s);
      break;
  }
  return result;
}

std::vector<float> rotary_table(const ModelSpec& spec, int64_t dim, int64_t positions) {
  const RotaryFrequencies f = rotary_frequencies(spec, dim, positions);
  std::vector<float> table(positions * dim);
  for (int64_t p = 0; p < positions; ++p)
    for (int64_t c = 0; c < dim / 2; ++c) {
      const double angle = double(p) * f.inverse[c];
      table[p * dim + c] = float(f.attention_factor * std::cos(angle));
      table[p * dim + dim / 2 + c] = float(f.attention_factor * std::sin(angle));
    }
  return table;
}

}  // namespace mixtape
