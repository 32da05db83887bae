#include "train/report/units.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <span>
#include <string_view>

namespace mixtape {
namespace {

std::string not_finite(double value) { return std::isnan(value) ? "nan" : value > 0 ? "inf" : "-inf"; }

// Three significant digits of a magnitude below 1000 (or what rounds to it).
std::string three_digits(double value) {
  const double size = std::fabs(value);
  return fmt::format("{:.{}f}", value, size >= 99.95 ? 0 : size >= 9.995 ? 1 : 2);
}

std::string scaled(double value, double base, std::span<const std::string_view> units, std::string_view space) {
  if (!std::isfinite(value)) return not_finite(value);
  size_t unit = 0;
  // What would be shown as 1000 (or 1024) of a unit is 1 of the next.
  while (unit + 1 < units.size() && std::fabs(value) >= base - 0.5) value /= base, ++unit;
  if (unit == 0) return fmt::format("{:.{}f}{}{}", value, value == std::floor(value) ? 0 : 2, space, units[0]);
  return fmt::format("{}{}{}", three_digits(value), space, units[unit]);
}

}  // namespace

std::string with_thousands(int64_t value) {
  const std::string digits = std::to_string(value);
  std::string text;
  for (size_t i = 0; i < digits.size(); ++i) {
    text += digits[i];
    const size_t left = digits.size() - 1 - i;
    if (left > 0 && left % 3 == 0 && digits[i] != '-') text += ',';
  }
  return text;
}

std::string counted(int64_t count, std::string_view noun) {
  return with_thousands(count) + " " + std::string(noun) + (count == 1 ? "" : "s");
}

std::string human_count(double value) {
  static constexpr std::array<std::string_view, 7> units{"", "k", "M", "B", "T", "P", "E"};
  return scaled(value, 1000, units, "");
}

std::string human_bytes(double bytes) {
  static constexpr std::array<std::string_view, 6> units{"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  return scaled(bytes, 1024, units, " ");
}

std::string human_duration(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0 || seconds > 1e11) return "-";
  if (seconds < 0.995) return fmt::format("{:.2f} s", seconds);
  if (seconds < 9.95) return fmt::format("{:.1f} s", seconds);
  const int64_t whole = std::llround(seconds);
  if (whole < 60) return fmt::format("{} s", whole);
  if (whole < 3600) return fmt::format("{}m {:02}s", whole / 60, whole % 60);
  if (whole < 86400) return fmt::format("{}h {:02}m", whole / 3600, whole % 3600 / 60);
  return fmt::format("{}d {:02}h", whole / 86400, whole % 86400 / 3600);
}

std::string human_loss(double value) { return std::isfinite(value) ? fmt::format("{:.4f}", value) : not_finite(value); }

std::string human_percent(double share) {
  if (!std::isfinite(share)) return not_finite(share);
  const double percent = 100 * share;
  return fmt::format("{:.{}f} %", percent, std::fabs(percent) < 9.95 ? 1 : 0);
}

std::string human_rate(double per_second) {
  if (!std::isfinite(per_second)) return not_finite(per_second);
  if (std::fabs(per_second) < 9.95) return fmt::format("{:.2f}", per_second);
  if (std::fabs(per_second) >= 999999.5) return human_count(per_second);
  return with_thousands(std::llround(per_second));
}

}  // namespace mixtape
