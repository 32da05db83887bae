#include "train/report/number_formats.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>

#include <fmt/format.h>

#include "core/base/dtype.h"

namespace mixtape {
namespace {

using tf32 = MiniFloat<uint32_t, 8, 10, false>;  // of NVIDIA's tensor cores; stored as fp32

struct Layout {
  const char* name;
  int exponent_bits, fraction_bits;
  double largest;
  int bias() const { return (1 << (exponent_bits - 1)) - 1; }
};

NumberInFormat floating(const Layout& layout, uint32_t code, double value) {
  const int e = layout.exponent_bits, f = layout.fraction_bits, least_exponent = 1 - layout.bias();
  NumberInFormat n{.format = layout.name, .value = value, .largest = layout.largest};
  n.bits =
      fmt::format("{:b} {:0{}b} {:0{}b}", code >> (e + f), code >> f & ((1u << e) - 1), e, code & ((1u << f) - 1), f);
  n.least_normal = std::ldexp(1.0, least_exponent);
  n.least = std::ldexp(1.0, least_exponent - f);
  if (std::isfinite(value))
    n.spacing = std::ldexp(1.0, (value == 0 ? least_exponent : std::max(std::ilogb(value), least_exponent)) - f);
  return n;
}

template <class T>
NumberInFormat narrow(const char* name, int exponent_bits, float x) {
  const Layout layout{name, exponent_bits, T::mantissa_bits, double(float(T::from_code(T::largest_code)))};
  const T held(x);
  return floating(layout, held.code, double(float(held)));
}

NumberInFormat int8_of(float x, double amax) {
  const double scale = amax > 0 ? amax / 127 : 1;
  const auto code = std::isnan(x) ? 0 : int(std::clamp(std::nearbyint(double(x) / scale), -127.0, 127.0));
  return {.format = "int8",
          .bits = fmt::format("{:08b}", uint8_t(code)),
          .value = code * scale,
          .spacing = scale,
          .largest = 127 * scale,
          .least_normal = scale,
          .least = scale};
}

}  // namespace

std::vector<NumberInFormat> in_all_formats(double x, double amax) {
  const auto f = float(x);
  return {floating({"fp32", 8, 23, double(std::bit_cast<float>(0x7f7fffffu))}, std::bit_cast<uint32_t>(f), double(f)),
          narrow<tf32>("tf32", 8, f),
          narrow<fp16>("fp16", 5, f),
          narrow<bf16>("bf16", 8, f),
          narrow<e4m3>("e4m3", 4, f),
          narrow<e5m2>("e5m2", 5, f),
          int8_of(f, amax)};
}

}  // namespace mixtape
