// The operation harness: describe an operation once, and have it checked on every back end and in every type.
//
//   const OpTest rms_norm_test{
//       .name = "rms_norm",
//       .sizes = {{1, 1}, {3, 37}, {5, 768}, {2, 4097}},
//       .inputs = [](Sizes s) { return Inputs{normal({s[0], s[1]}), normal({s[1]})}; },
//       .op = [](Tape& tape, const Tensors& in, Sizes) { return Tensors{rms_norm(tape, in[0], in[1], 1e-5f)}; },
//       .reference = [](const Arrays& in, Sizes) { return Arrays{rms_norm_reference(in[0], in[1], 1e-5)}; },
//       .reduction = [](Sizes s) { return s[1]; }};
//   MIXTAPE_OP_TEST(rms_norm_test);
//
// From this follow, for each device, type and size:
//   - forward against the float64 reference at the inputs as rounded to the type;
//   - every gradient against central differences of the float64 reference (all elements up to 512, beyond that 64
//     sampled ones with the first, the last and tile edges, and 8 random directions);
//   - gradients that overwrite (into NaN) and that add to what is there;
//   - gradients of parameters in bf16: those in float32, rounded once;
//   - outputs, gradients and scratch start as NaN and are followed by guard bytes;
//   - two runs give the same bits, and so do 1, 2 and 4 threads in strict mode, where the device has threads; on the
//     emulated one each run has a seed of its own, and so another order of threads, warps and blocks;
//   - selective recomputation gives the same gradient bits.
// The tolerance follows from the type, the number of roundings to it and the length of the reduction: tolerance().
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>

#include "core/cpu/backend.h"
#include "core/tape.h"
#include "tests/support/array.h"

namespace mixtape {

using Sizes = std::vector<int64_t>;
using Tensors = std::vector<Tensor>;

// One input of an operation: its values in float64, and how it enters.
struct Input {
  enum Kind {
    activation,  // of the tested type; a gradient of that type is expected
    parameter,   // of the tested type; its gradient is float32, or of the type too
    constant,    // float32 whatever the type, no gradient (tables, slopes)
    integer,     // int32, no gradient
    absent       // an optional argument that is left out
  };
  Kind kind = activation;
  Array values;
};
using Inputs = std::vector<Input>;

// Drawn from Philox by (shape, a running number), so a test's inputs never change.
Input normal(Shape shape, double std = 1);
Input normal_parameter(Shape shape, double std = 1);
Input uniform_parameter(Shape shape, double low, double high);
Input constant(Array values);
Input integers(Shape shape, const std::vector<int64_t>& values);
Input random_integers(Shape shape, int64_t low, int64_t high);  // in [low, high)
Input absent();

// The state that operations see in tests; references use it too.
const StepState& test_state();

struct OpTest {
  std::string name;
  std::vector<Sizes> sizes;
  std::function<Inputs(Sizes)> inputs;
  std::function<Tensors(Tape&, const Tensors&, Sizes)> op;
  std::function<Arrays(const Arrays&, Sizes)> reference;
  // The length of the longest sum in the operation or its gradients: rounding errors grow with its root.
  std::function<int64_t(Sizes)> reduction = [](Sizes) -> int64_t { return 1; };
  // How many times intermediate results are rounded to the type on the way from an input to a gradient.
  int roundings = 2;
  // The operation delivers its gradients in forward (the loss): output 0 is the loss, nothing is seeded.
  bool is_loss = false;
  std::vector<DType> types = {DType::f32, DType::f16, DType::bf16};
};

// The largest error allowed in an array whose largest magnitude is `scale`.
double tolerance(DType type, int roundings, int64_t reduction, double scale);

// A device that operations are tested on.
struct TestDevice {
  std::string name;
  std::function<std::unique_ptr<Backend>(CpuOptions)> make;
  bool threads = false;      // of the host compute: their number must not matter
  bool host_memory = false;  // so memory can be guarded and begin as NaN
  // What differs on it from the device before; all, if there is no function.
  std::function<bool(const OpTest&, DType)> differs = {};
};
// Every back end of this build: the CPU, and the CUDA back end as the emulator runs it, with the kernels of sm_80 and,
// where they differ, with Hopper's. MIXTAPE_TEST_DEVICES, a list of names with commas between, leaves out the others.
const std::vector<TestDevice>& test_devices();

// What one run of an operation gave, as raw bits and as numbers.
struct OpRun {
  std::vector<std::vector<std::byte>> output_bits, gradient_bits;
  Arrays outputs, gradients;  // gradients: one an input, empty where none
  std::vector<std::string> guard_errors;
};
struct OpRunOptions {
  DType type = DType::f32;
  CpuOptions cpu;
  RecomputePolicy policy = RecomputePolicy::none;
  const Arrays* preset_gradients = nullptr;  // added to
  bool narrow_gradients = false;             // of parameters: of the type, not float32
  bool backward = true;
};
// `inputs` as rounded to the type, `weights` one an output: the gradients that are seeded.
OpRun run_op(const TestDevice& device, const OpTest& test, const Sizes& sizes, const Inputs& inputs,
             const Arrays& weights, const OpRunOptions& options);

// Rounds to the type and back.
double rounded(double value, DType type);

// All checks above, for all devices, types and sizes.
void check_op(const OpTest& test);

#define MIXTAPE_OP_TEST(description) \
  TEST(OpHarness, description) { ::mixtape::check_op(::mixtape::description); }

}  // namespace mixtape
