#include "train/config/numbers.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>

namespace mixtape {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

std::string_view without_sign(std::string_view text) {
  return text.starts_with('-') || text.starts_with('+') ? text.substr(1) : text;
}

bool has_leading_zero(std::string_view text) {
  text = without_sign(text);
  return text.size() > 1 && text[0] == '0' && is_digit(text[1]);
}

}  // namespace

std::optional<double> read_number(std::string_view text) {
  const std::string_view magnitude = without_sign(text);
  const bool starts_well =
      !magnitude.empty() &&
      (is_digit(magnitude[0]) || (magnitude[0] == '.' && magnitude.size() > 1 && is_digit(magnitude[1])));
  if (!starts_well || has_leading_zero(text)) return std::nullopt;
  double value = 0;
  const char* end = magnitude.data() + magnitude.size();
  const auto [at, error] = std::from_chars(magnitude.data(), end, value);
  if (error != std::errc{} || at != end || !std::isfinite(value)) return std::nullopt;
  return text[0] == '-' ? -value : value;
}

std::optional<int64_t> read_integer(std::string_view text) {
  if (has_leading_zero(text)) return std::nullopt;
  int64_t value = 0;
  const std::string_view digits = text.starts_with('+') ? text.substr(1) : text;
  const bool signs_once = digits.size() == text.size() || (!digits.empty() && is_digit(digits[0]));
  const char* end = digits.data() + digits.size();
  const auto [at, error] = std::from_chars(digits.data(), end, value);
  if (signs_once && error == std::errc{} && at == end) return value;
  const std::optional<double> number = read_number(text);
  if (!number || std::trunc(*number) != *number || std::abs(*number) > 0x1p53) return std::nullopt;
  return int64_t(*number);
}

std::string why_no_number(std::string_view text) {
  const std::string_view magnitude = without_sign(text);
  if (has_leading_zero(text)) return "; a number with a leading 0 is octal to some readers, write it without";
  if (magnitude.size() > 1 && magnitude[0] == '0' && !is_digit(magnitude[1]) && magnitude[1] != '.')
    return "; write numbers in decimal";
  if (magnitude.find('_') != magnitude.npos && !magnitude.empty() && is_digit(magnitude[0]))
    return "; write numbers without '_'";
  if (magnitude == ".inf" || magnitude == ".nan" || magnitude == ".Inf" || magnitude == ".NaN" || magnitude == "inf" ||
      magnitude == "nan" || magnitude == "NaN" || magnitude == "Infinity")
    return "; numbers must be finite";
  return "";
}

std::string number_text(double value) {
  std::string text = fmt::format("{}", value);
  const size_t e = text.find('e');
  if (e != text.npos && text.find('.') == text.npos) text.insert(e, ".0");
  return text;
}

}  // namespace mixtape
