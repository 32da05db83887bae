#include "core/tape.h"

#include "core/ops/activation.h"
#include "core/ops/matmul.h"
#include "tests/support/op_test.h"

namespace mixtape {
namespace {

// A value in bfloat16 that 300 linear layers read, each of which gives 1/256 to its gradient: in the value's own type
// the sum stops growing at 1, where half a unit in the last place is 1/256.
float gradient_of_many_readers(bool in_float32, RecomputePolicy policy = RecomputePolicy::none) {
  constexpr int readers = 300;
  CpuBackend backend;
  HostMemory memory(int64_t(8) << 20);
  Arena arena(memory.data(), memory.bytes(), Arena::Guards::on);
  backend.bind(arena);
  const auto filled = [&](float value) {
    const Tensor t = backend.make({1, 1}, DType::bf16);
    *t.data<bf16>() = bf16(value);
    return t;
  };
  Tape tape(backend, nullptr, &test_state());
  tape.set_policy(policy);
  const Tensor x = tape.leaf(filled(1)), weight = filled(1);
  {
    const Tensor shared = activation(tape, x, Unary::relu);
    if (in_float32) tape.sum_gradient_in_float32(shared);
    for (int i = 0; i < readers; ++i) tape.seed(linear(tape, shared, weight, {}), filled(1.f / 256));
  }
  tape.backward();
  EXPECT_EQ(tape.gradient(x).dtype(), DType::bf16);
  return float(*tape.gradient(x).data<bf16>());
}

TEST(Tape, GradientsOfManyReadersCanBeSummedInFloat32) {
  EXPECT_EQ(gradient_of_many_readers(false), 1);
  EXPECT_EQ(gradient_of_many_readers(true), float(bf16(300.f / 256)));
  EXPECT_EQ(gradient_of_many_readers(true, RecomputePolicy::selective), float(bf16(300.f / 256)));
}

}  // namespace
}  // namespace mixtape
