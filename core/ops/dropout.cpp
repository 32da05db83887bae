#include "core/ops/dropout.h"

#include <cmath>

namespace mixtape {
namespace {

struct DropoutSpec {
  int threshold;
  int64_t first_element;
};

constexpr Operation<DropoutSpec> dropout_operation{
    .name = "dropout",
    .forward =
        [](const Forward& f, const DropoutSpec& spec) {
          f.backend().dropout().dropout({.y = {f.out(0), Write::overwrite},
                                         .x = f.in(0),
                                         .threshold = spec.threshold,
                                         .site = f.site(),
                                         .state = f.state(),
                                         .first_element = spec.first_element});
        },
    .backward =
        [](const Backward& b, const DropoutSpec& spec) {
          b.backend().dropout().dropout({.y = b.grad(0),
                                         .x = b.dy(0),
                                         .threshold = spec.threshold,
                                         .site = b.site(),
                                         .state = b.state(),
                                         .first_element = spec.first_element});
        },
    .random = true,
};

}  // namespace

int dropout_threshold(double p) { return int(std::lround(p * 256)); }

Tensor dropout(Tape& tape, const Tensor& x, int threshold, int64_t first_element) {
  if (threshold < 0 || threshold > 255) throw Error("dropout: threshold {}, expected 0 to 255", threshold);
  if (threshold == 0 || !tape.training()) return x;
  return tape.run(dropout_operation, {x}, Makes{.outputs = {like(x)}}, DropoutSpec{threshold, first_element});
}

}  // namespace mixtape
