// A number as each of the formats of training holds it.
#pragma once

#include <string>
#include <vector>

namespace mixtape {

struct NumberInFormat {
  std::string format;
  std::string bits;         // sign, exponent and fraction apart; of int8 all eight
  double value = 0;         // what is held; of int8 code * scale
  double spacing = 0;       // to the neighbour away from zero; 0 of what is not finite
  double largest = 0;       // finite
  double least_normal = 0;  // with all its digits; of int8 the scale
  double least = 0;         // above 0
};

// fp32, tf32, fp16, bf16, e4m3, e5m2 and int8. The first is `x` rounded to nearest, ties to even; the others are the
// first rounded so, as casts in training do (core/base/dtype.h). int8's scale is amax / 127, where amax is the
// largest magnitude of the tensor that x stands in.
std::vector<NumberInFormat> in_all_formats(double x, double amax);

}  // namespace mixtape
