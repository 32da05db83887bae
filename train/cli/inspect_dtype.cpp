#include "train/cli/inspect_dtype.h"

#include <algorithm>
#include <cmath>
#include <memory>

#include "core/base/error.h"
#include "train/config/numbers.h"
#include "train/report/number_formats.h"

namespace mixtape {
namespace {

struct DtypeOptions {
  std::vector<std::string> numbers;
  double amax = 0;
};

double number_of(const std::string& text) {
  if (text == "inf" || text == "-inf") return text[0] == '-' ? -INFINITY : INFINITY;
  if (text == "nan") return NAN;
  if (const auto number = read_number(text)) return *number;
  throw ConfigError("inspect dtype: '{}', expected a number such as 3.14159, -1e-8, inf or nan", text);
}

std::string share_text(double error, double of) {
  if (error == 0) return "exact";
  if (!std::isfinite(error) || of == 0) return "-";
  const double share = std::abs(error / of);
  return share < 1e-3 ? fmt::format("{:.2g}", share) : fmt::format("{:.2f} %", 100 * share);
}

void print_number(const std::string& text, double x, double amax) {
  fmt::print("{}\n  {:<6} {:<34} {:>16} {:>11} {:>9} {:>10}\n", text, "", "sign exponent fraction", "value", "error",
             "relative", "spacing");
  for (const NumberInFormat& n : in_all_formats(x, amax)) {
    const double error = n.value - x;
    const bool both_infinite = std::isinf(x) && n.value == x;
    fmt::print("  {:<6} {:<34} {:>16.9g} {:>11.3g} {:>9} {:>10.3g}\n", n.format, n.bits, n.value,
               both_infinite ? 0 : error, both_infinite ? "exact" : share_text(error, x), n.spacing);
  }
}

void print_ranges(double amax) {
  fmt::print("range\n  {:<6} {:>16} {:>16} {:>16}\n", "", "least above 0", "least normal", "largest");
  for (const NumberInFormat& n : in_all_formats(1, amax))
    fmt::print("  {:<6} {:>16.6g} {:>16.6g} {:>16.6g}\n", n.format, n.least, n.least_normal, n.largest);
}

void inspect_dtype(const DtypeOptions& options) {
  std::vector<double> numbers;
  for (const std::string& text : options.numbers) numbers.push_back(number_of(text));
  double amax = options.amax;
  if (amax == 0)
    for (const double x : numbers)
      if (std::isfinite(x)) amax = std::max(amax, std::abs(x));
  for (size_t i = 0; i < numbers.size(); ++i) print_number(options.numbers[i], numbers[i], amax);
  print_ranges(amax);
  fmt::print("int8: codes times a scale, here {:.6g} = {:.6g} / 127\n", in_all_formats(1, amax).back().spacing,
             amax > 0 ? amax : 127);
}

}  // namespace

void add_dtype_command(Command& inspect) {
  Command command = inspect.subcommand("dtype", "how fp32, tf32, fp16, bf16, fp8 and int8 hold a number");
  const auto options = std::make_shared<DtypeOptions>();
  command.option("numbers", options->numbers, "numbers, decimal, or inf or nan").required();
  command.option("--amax", options->amax, "the largest magnitude beside them, for int8's scale; 0: that of these")
      .at_least(0);
  command.action([options] { inspect_dtype(*options); });
}

}  // namespace mixtape
