// Numbers in configuration files: what is read, what is written. Internal to train/config.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace mixtape {

// Decimal, with an optional sign and exponent: 1e-3, 65536, -0.5. Nothing else: other notations (010, 0x10, 1_000,
// .inf) mean different numbers to different readers. Empty for those and for numbers that are not finite.
std::optional<double> read_number(std::string_view text);

// As above, and whole: also 1e9. Empty where it does not fit 64 bits or, with a fraction or exponent, 53.
std::optional<int64_t> read_integer(std::string_view text);

// Why a text that may look like a number is none: "; a leading 0 is octal to some readers" or "".
std::string why_no_number(std::string_view text);

// The shortest decimal that reads back as the same number; with an exponent it has a point, as YAML 1.1 wants.
std::string number_text(double value);

}  // namespace mixtape
