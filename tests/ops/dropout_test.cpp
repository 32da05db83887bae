#include "core/ops/dropout.h"

#include "core/base/philox.h"
#include "tests/support/op_test.h"

namespace mixtape {
namespace {

constexpr int threshold = 77;

// The mask as the header defines it; `site` is the operation's number on the tape.
double kept(int64_t element, uint32_t site, int threshold) {
  const auto words = philox(test_state().philox, uint64_t(element / 16), site, Purpose::dropout);
  const int64_t byte = element % 16;
  const int value = (words[byte / 4] >> (8 * (byte % 4))) & 0xff;
  return value < threshold ? 0 : 1 / (1 - threshold / 256.0);
}

const OpTest dropout_test{
    .name = "dropout",
    .sizes = {{1, 1}, {3, 37}, {5, 768}, {17, 2051}},
    .inputs =
        [](Sizes s) {
          return Inputs{normal({s[0], s[1]})};
        },
    // Two operations, so that sites differ.
    .op =
        [](Tape& tape, const Tensors& in, Sizes) {
          return Tensors{dropout(tape, in[0], threshold), dropout(tape, in[0], 128)};
        },
    .reference =
        [](const Arrays& in, Sizes) {
          Array a(in[0].shape()), b(in[0].shape());
          for (int64_t i = 0; i < a.count(); ++i) {
            a[i] = in[0][i] * kept(i, 0, threshold);
            b[i] = in[0][i] * kept(i, 1, 128);
          }
          return Arrays{a, b};
        },
    .roundings = 3,
};
MIXTAPE_OP_TEST(dropout_test);

// Rows of a longer tensor, whose elements are counted from its beginning; at a Philox call's first element, and not.
TEST(OpHarness, dropout_of_a_part) {
  for (const int64_t first : {48, 37}) {
    OpTest test = dropout_test;
    test.name = "dropout of a part";
    test.op = [first](Tape& tape, const Tensors& in, Sizes) { return Tensors{dropout(tape, in[0], threshold, first)}; };
    test.reference = [first](const Arrays& in, Sizes) {
      Array a(in[0].shape());
      for (int64_t i = 0; i < a.count(); ++i) a[i] = in[0][i] * kept(first + i, 0, threshold);
      return Arrays{a};
    };
    check_op(test);
  }
}

TEST(Dropout, Thresholds) {
  EXPECT_EQ(dropout_threshold(0), 0);
  EXPECT_EQ(dropout_threshold(0.1), 26);
  EXPECT_EQ(dropout_threshold(0.5), 128);
}

TEST(Dropout, IsTheIdentityOutsideTraining) {
  CpuBackend backend;
  HostMemory memory(1 << 16);
  Arena arena(memory.data(), memory.bytes());
  backend.bind(arena);
  Tape tape(backend, nullptr, &test_state());
  const Tensor x = tape.leaf(backend.make({4, 4}, DType::f32));
  EXPECT_EQ(dropout(tape, x, 0).raw(), x.raw());
  tape.set_training(false);
  EXPECT_EQ(dropout(tape, x, 99).raw(), x.raw());
  EXPECT_THROW(dropout(tape, x, 256), Error);
}

// A view's mask is that of the tensor it is: rows of its own width.
TEST(Dropout, TakesViews) {
  CpuBackend backend;
  HostMemory memory(1 << 16);
  Arena arena(memory.data(), memory.bytes());
  backend.bind(arena);
  const Tensor x = backend.make({5, 40}, DType::f32), y = backend.make({5, 40}, DType::f32);
  std::fill_n(x.data<float>(), x.count(), 1.f);
  std::fill_n(y.data<float>(), y.count(), -7.f);
  backend.dropout().dropout({.y = {y.columns(3, 21), Write::overwrite},
                             .x = x.columns(3, 21),
                             .threshold = threshold,
                             .site = 5,
                             .state = &test_state()});
  for (int64_t r = 0; r < 5; ++r)
    for (int64_t c = 0; c < 40; ++c)
      EXPECT_EQ(y.data<float>()[r * 40 + c], c < 3 || c >= 24 ? -7.f : float(kept(r * 21 + c - 3, 5, threshold)));
}

}  // namespace
}  // namespace mixtape
