#include "core/ops/matmul.h"

#include "core/base/dispatch.h"
#include "core/base/philox.h"
#include "core/cpu/gemm_choices.h"
#include "tests/support/op_test.h"

namespace mixtape {
namespace {

double act(Unary kind, double x) {
  switch (kind) {
    case Unary::relu:
      return x > 0 ? x : 0;
    case Unary::gelu:
      return x / 2 * (1 + std::erf(x / std::sqrt(2.0)));
    case Unary::gelu_tanh:
      return x / 2 * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case Unary::silu:
      return x / (1 + std::exp(-x));
    case Unary::tanh:
      return std::tanh(x);
    case Unary::none:
      break;
  }
  return x;
}

Array linear_reference(const Array& x, const Array& weight, const Array& bias, Unary kind) {
  Array y({x.rows(), weight.rows()});
  for (int64_t r = 0; r < y.rows(); ++r)
    for (int64_t o = 0; o < y.cols(); ++o) {
      double sum = bias.count() ? bias[o] : 0;
      for (int64_t i = 0; i < x.cols(); ++i) sum += x(r, i) * weight(o, i);
      y(r, o) = act(kind, sum);
    }
  return y;
}

// Sizes: rows, in, out. One element, odd, around the edges of vectors and tiles, more rows than one block of sums.
const std::vector<Sizes> product_sizes = {{1, 1, 1}, {3, 37, 5}, {17, 64, 97}, {290, 24, 33}};
int64_t longest_product(Sizes s) { return std::max({s[0], s[1], s[2]}); }

template <Unary kind>
const OpTest linear_with_bias{
    .name = fmt::format("linear with bias, activation {}", int(kind)),
    .sizes = product_sizes,
    .inputs =
        [](Sizes s) {
          return Inputs{normal({s[0], s[1]}), normal_parameter({s[2], s[1]}, 1 / std::sqrt(double(s[1]))),
                        normal_parameter({s[2]})};
        },
    .op = [](Tape& tape, const Tensors& in, Sizes) { return Tensors{linear(tape, in[0], in[1], in[2], kind)}; },
    .reference = [](const Arrays& in, Sizes) { return Arrays{linear_reference(in[0], in[1], in[2], kind)}; },
    .reduction = longest_product};

const OpTest linear_test{
    .name = "linear",
    .sizes = product_sizes,
    .inputs =
        [](Sizes s) {
          return Inputs{normal({s[0], s[1]}), normal_parameter({s[2], s[1]}, 1 / std::sqrt(double(s[1])))};
        },
    .op = [](Tape& tape, const Tensors& in, Sizes) { return Tensors{linear(tape, in[0], in[1], {})}; },
    .reference = [](const Arrays& in, Sizes) { return Arrays{linear_reference(in[0], in[1], {}, Unary::none)}; },
    .reduction = longest_product};

// The weights are no parameter: their gradient has the tested type.
const OpTest linear_of_activations{
    .name = "linear, both operands activations",
    .sizes = {{3, 37, 5}, {290, 24, 33}},
    .inputs =
        [](Sizes s) {
          return Inputs{normal({s[0], s[1]}), normal({s[2], s[1]}, 1 / std::sqrt(double(s[1]))), normal({s[2]})};
        },
    .op = [](Tape& tape, const Tensors& in, Sizes) { return Tensors{linear(tape, in[0], in[1], in[2], Unary::silu)}; },
    .reference = [](const Arrays& in, Sizes) { return Arrays{linear_reference(in[0], in[1], in[2], Unary::silu)}; },
    .reduction = longest_product};

TEST(OpHarness, linear) { check_op(linear_test); }
TEST(OpHarness, linear_bias) { check_op(linear_with_bias<Unary::none>); }
TEST(OpHarness, linear_relu) { check_op(linear_with_bias<Unary::relu>); }
TEST(OpHarness, linear_gelu) { check_op(linear_with_bias<Unary::gelu>); }
TEST(OpHarness, linear_gelu_tanh) { check_op(linear_with_bias<Unary::gelu_tanh>); }
TEST(OpHarness, linear_silu) { check_op(linear_with_bias<Unary::silu>); }
TEST(OpHarness, linear_of_activations) { check_op(linear_of_activations); }

// A device with memory, and tensors of it.
class MatmulTest : public testing::Test {
 protected:
  explicit MatmulTest(CpuOptions options = {.threads = 2}) : backend(options) { backend.bind(arena); }

  Tensor random(Shape shape, DType type, uint64_t seed, double std = 1) {
    Tensor t = backend.make(shape, type);
    dispatch<float, fp16, bf16>(type, "test", [&]<class T>() {
      for (int64_t i = 0; i < t.count(); ++i) {
        const auto bits = philox(philox_key(seed), uint64_t(i), 0, Purpose::test);
        t.data<T>()[i] = T(float(std * normal(bits[0], bits[1])));
      }
    });
    return t;
  }
  static double at(const Tensor& t, int64_t r, int64_t c) {
    double value = 0;
    dispatch<float, fp16, bf16>(t.dtype(), "test",
                                [&]<class T>() { value = float(t.data<T>()[r * t.row_stride() + c]); });
    return value;
  }
  static std::vector<std::byte> bits(const Tensor& t) { return {t.raw(), t.raw() + t.bytes()}; }

  HostMemory memory{int64_t(1) << 30};
  Arena arena{memory.data(), memory.bytes()};
  CpuBackend backend;
};

// More rows than are widened at a time, and more weights than fit into one panel.
TEST_F(MatmulTest, BlocksAndPanels) {
  constexpr int64_t rows = 1300, in = 40, out = 4200;
  for (const DType type : {DType::f32, DType::f16, DType::bf16}) {
    const Tensor x = random({rows, in}, type, 1), weight = random({out, in}, type, 2, 0.1);
    const Tensor bias = random({out}, type, 3), dy = random({rows, out}, type, 4);
    const Tensor y = backend.make({rows, out}, type), pre = backend.make({rows, out}, type);
    const Tensor dx = backend.make({rows, in}, type), dweight = backend.make({out, in}, DType::f32);
    const Tensor dbias = backend.make({out}, DType::f32);
    backend.matmul().linear({.y = y, .pre = pre, .x = x, .weight = weight, .bias = bias, .activation = Unary::relu});
    backend.matmul().linear_backward({.dx = {dx, Write::overwrite},
                                      .dweight = {dweight, Write::overwrite},
                                      .dbias = {dbias, Write::overwrite},
                                      .dy = dy,
                                      .pre = pre,
                                      .x = x,
                                      .weight = weight,
                                      .activation = Unary::relu});
    const auto du = [&](int64_t r, int64_t o) { return at(pre, r, o) > 0 ? at(dy, r, o) : 0.0; };
    for (int64_t r : {int64_t(0), int64_t(255), int64_t(256), int64_t(1023), int64_t(1024), rows - 1})
      for (int64_t o : {int64_t(0), int64_t(511), int64_t(512), int64_t(3939), int64_t(3940), out - 1}) {
        double sum = at(bias, 0, o);
        for (int64_t i = 0; i < in; ++i) sum += at(x, r, i) * at(weight, o, i);
        EXPECT_NEAR(at(pre, r, o), sum, tolerance(type, 1, in, 4)) << name_of(type) << " " << r << " " << o;
        EXPECT_EQ(at(y, r, o), std::max(at(pre, r, o), 0.0));
      }
    for (int64_t i : {int64_t(0), int64_t(17), in - 1}) {
      for (int64_t r : {int64_t(0), int64_t(1023), int64_t(1024), rows - 1}) {
        double sum = 0;
        for (int64_t o = 0; o < out; ++o) sum += du(r, o) * at(weight, o, i);
        EXPECT_NEAR(at(dx, r, i), sum, tolerance(type, 1, out, 20)) << name_of(type) << " " << r << " " << i;
      }
      for (int64_t o : {int64_t(0), int64_t(3940), out - 1}) {
        double sum = 0;
        for (int64_t r = 0; r < rows; ++r) sum += du(r, o) * at(x, r, i);
        EXPECT_NEAR(at(dweight, o, i), sum, tolerance(DType::f32, 1, rows, 100)) << name_of(type) << " " << o;
      }
    }
    for (int64_t o : {int64_t(0), int64_t(511), int64_t(512), out - 1}) {
      double sum = 0;
      for (int64_t r = 0; r < rows; ++r) sum += du(r, o);
      EXPECT_NEAR(at(dbias, 0, o), sum, tolerance(DType::f32, 1, rows, 100)) << name_of(type) << " " << o;
    }
  }
}

// A view's rows lie further apart than they are wide; what lies between is not touched.
TEST_F(MatmulTest, Views) {
  const Tensor packed = random({9, 60}, DType::f32, 5), weight = random({7, 20}, DType::f32, 6);
  const Tensor wide = backend.make({9, 21}, DType::f32);
  std::fill_n(wide.data<float>(), wide.count(), 5.f);
  backend.matmul().linear({.y = wide.columns(7, 7), .x = packed.columns(20, 20), .weight = weight});
  for (int64_t r = 0; r < 9; ++r)
    for (int64_t c = 0; c < 21; ++c) {
      double want = 5;
      if (c >= 7 && c < 14) {
        want = 0;
        for (int64_t i = 0; i < 20; ++i) want += at(packed, r, 20 + i) * at(weight, c - 7, i);
      }
      EXPECT_NEAR(at(wide, r, c), want, tolerance(DType::f32, 1, 20, 5));
    }
}

// Gradients that nobody wants are neither computed nor needed; dy may become du.
TEST_F(MatmulTest, LeavesOutGradients) {
  const Tensor x = random({5, 8}, DType::f32, 7), weight = random({6, 8}, DType::f32, 8);
  const Tensor pre = random({5, 6}, DType::f32, 9), dy = random({5, 6}, DType::f32, 10);
  const Tensor dx = backend.make({5, 8}, DType::f32), again = backend.make({5, 8}, DType::f32);
  const Tensor dbias = backend.make({6}, DType::f32);
  LinearBackward a{.dx = {dx, Write::overwrite}, .dy = dy, .pre = pre, .x = x, .weight = weight};
  a.activation = Unary::gelu;
  const auto before = bits(dy);
  backend.matmul().linear_backward(a);
  EXPECT_EQ(bits(dy), before);
  a.dx.tensor = again;
  a.dbias = {dbias, Write::overwrite};
  a.dy_is_scratch = true;
  backend.matmul().linear_backward(a);
  EXPECT_EQ(bits(again), bits(dx));
  for (int64_t o = 0; o < 6; ++o) {
    double sum = 0;
    for (int64_t r = 0; r < 5; ++r) sum += at(dy, r, o);  // now du
    EXPECT_NEAR(at(dbias, 0, o), sum, 1e-5);
  }
}

TEST_F(MatmulTest, FewRowsEqualLinearAndDoNotSeeEachOther) {
  for (const DType type : {DType::f32, DType::f16, DType::bf16})
    for (const auto& [in, out] : {std::pair<int64_t, int64_t>{1, 1}, {37, 67}, {768, 130}, {100, 1000}}) {
      const Tensor x = random({19, in}, type, 11), weight = random({out, in}, type, 12, 1 / std::sqrt(double(in)));
      const Tensor bias = random({out}, type, 13);
      const Tensor whole = backend.make({19, out}, type), few = backend.make({19, out}, type);
      const Unary kind = Unary::gelu_tanh;
      backend.matmul().linear({.y = whole, .x = x, .weight = weight, .bias = bias, .activation = kind});
      backend.matmul().linear_rows({.y = few, .x = x, .weight = weight, .bias = bias, .activation = kind});
      for (int64_t r = 0; r < 19; ++r)
        for (int64_t o = 0; o < out; ++o)
          ASSERT_NEAR(at(few, r, o), at(whole, r, o), tolerance(type, 2, in, 4))
              << name_of(type) << " " << r << " " << o;
      for (int64_t rows : {1, 2, 3, 8, 16, 17}) {
        const Tensor y = backend.make({rows, out}, type);
        backend.matmul().linear_rows(
            {.y = y, .x = x.slice(19 - rows, rows), .weight = weight, .bias = bias, .activation = kind});
        EXPECT_EQ(bits(y), bits(few.slice(19 - rows, rows))) << name_of(type) << ", " << rows << " rows of " << in;
      }
    }
}

// Large enough for many tiles, and for OpenBLAS to start threads where it may.
TEST_F(MatmulTest, StrictBitsDoNotDependOnThreads) {
  const Tensor x = random({600, 300}, DType::f32, 14), weight = random({1100, 300}, DType::f32, 15);
  const Tensor dy = random({600, 1100}, DType::f32, 16);
  std::vector<std::vector<std::byte>> first;
  for (int threads : {1, 2, 3, 4}) {
    CpuBackend strict({.threads = threads, .determinism = Determinism::strict});
    strict.bind(arena);
    const Tensor y = strict.make({600, 1100}, DType::f32), dx = strict.make({600, 300}, DType::f32);
    const Tensor dweight = strict.make({1100, 300}, DType::f32), dbias = strict.make({1100}, DType::f32);
    const Tensor few = strict.make({4, 1100}, DType::f32);
    strict.matmul().linear({.y = y, .x = x, .weight = weight});
    strict.matmul().linear_rows({.y = few, .x = x.slice(0, 4), .weight = weight});
    strict.matmul().linear_backward({.dx = {dx, Write::overwrite},
                                     .dweight = {dweight, Write::overwrite},
                                     .dbias = {dbias, Write::overwrite},
                                     .dy = dy,
                                     .x = x,
                                     .weight = weight});
    const std::vector<std::vector<std::byte>> now = {bits(y), bits(dx), bits(dweight), bits(dbias), bits(few)};
    if (first.empty()) first = now;
    EXPECT_EQ(now, first) << threads << " threads";
  }
}

// The dry run asks for what the run asks for.
TEST_F(MatmulTest, PlansItsWorkspace) {
  for (const DType type : {DType::f32, DType::bf16}) {
    Arena plan;
    int64_t requests[2], peaks[2];
    for (int pass = 0; pass < 2; ++pass) {
      Arena run(memory.data(), memory.bytes());
      Arena& used = pass == 0 ? plan : run;
      backend.bind(used);
      {
        const Tensor x = backend.make({1500, 64}, type), weight = backend.make({5000, 64}, type);
        const Tensor y = backend.make({1500, 5000}, type), dx = backend.make({1500, 64}, type);
        const Tensor dweight = backend.make({5000, 64}, type);
        if (pass == 1)
          for (const Tensor& t : {x, weight, y}) backend.zero(t);
        backend.matmul().linear({.y = y, .x = x, .weight = weight, .activation = Unary::gelu});
        backend.matmul().linear_backward({.dx = {dx, Write::overwrite},
                                          .dweight = {dweight, Write::overwrite},
                                          .dy = y,
                                          .pre = y,
                                          .x = x,
                                          .weight = weight,
                                          .activation = Unary::gelu});
      }
      requests[pass] = used.requests();
      peaks[pass] = used.peak();
      backend.bind(arena);
    }
    EXPECT_EQ(requests[0], requests[1]);
    EXPECT_EQ(peaks[0], peaks[1]);
    EXPECT_GT(peaks[0], 0);
  }
}

TEST_F(MatmulTest, ChoicesAreKeptAsText) {
  set_matmul_choices("nt 60 1001 500 store openblas 3x2\ntn 61 62 63 add onednn threads\n");
  const std::string text = matmul_choices();
  EXPECT_NE(text.find("nt 60 1001 500 store openblas 3x2\n"), text.npos) << text;
  EXPECT_NE(text.find("tn 61 62 63 add onednn threads\n"), text.npos) << text;
  set_matmul_choices(text);
  EXPECT_EQ(matmul_choices(), text);

  // A given choice is used, and not timed: another partition gives the bits of that partition.
  const Tensor x = random({60, 500}, DType::f32, 17), weight = random({1001, 500}, DType::f32, 18);
  const Tensor y = backend.make({60, 1001}, DType::f32), want = backend.make({60, 1001}, DType::f32);
  backend.matmul().linear({.y = y, .x = x, .weight = weight});
  EXPECT_EQ(matmul_choices(), text);
  for (int64_t i = 0; i < 3; ++i)
    for (int64_t j = 0; j < 2; ++j) {
      const int64_t col = 1001 * j / 2, cols = 1001 * (j + 1) / 2 - col;
      parallel_tiles(1, [&](int64_t) {
        gemm_here({.transpose_b = true,
                   .m = 20,
                   .n = cols,
                   .k = 500,
                   .a = x.data<float>() + i * 20 * 500,
                   .lda = 500,
                   .b = weight.data<float>() + col * 500,
                   .ldb = 500,
                   .c = want.data<float>() + i * 20 * 1001 + col,
                   .ldc = 1001});
      });
    }
  EXPECT_EQ(bits(y), bits(want));

  // A new shape is timed once.
  const Tensor small = backend.make({33, 44}, DType::f32);
  const Gemm product{.m = 33,
                     .n = 44,
                     .k = 500,
                     .a = x.raw(),
                     .lda = 500,
                     .b = x.raw(),
                     .ldb = 44,
                     .c = small.data<float>(),
                     .ldc = 44};
  gemm(product, Determinism::fast);
  const std::string longer = matmul_choices();
  EXPECT_NE(longer.find("nn 33 44 500 store "), longer.npos);
  gemm(product, Determinism::fast);
  EXPECT_EQ(matmul_choices(), longer);
}

TEST(MatmulChoices, RefusesWhatIsNone) {
  for (const char* line :
       {"nt 256 768 store openblas 1x4", "nx 2 3 4 store openblas 1x1", "nt -2 3 4 store openblas 1x1",
        "nt 2 3 4 keep openblas 1x1", "nt 2 3 4 store mkl 1x1", "nt 2 3 4 store openblas 3x1",
        "nt 2 3 4 store openblas 1x9", "nt 2 3 4 store openblas 1x", "nt 2 3 4 store openblas 1x1 more",
        "nt 2 3 4 bf16_store openblas 1x1", "nt 2 3 99999999999999999999 store openblas 1x1", "{}"})
    try {
      set_matmul_choices(std::string("nt 2 3 4 store openblas 1x1\n") + line);
      ADD_FAILURE() << "accepted: " << line;
    } catch (const CheckpointError& e) {
      EXPECT_NE(std::string(e.what()).find("line 2"), std::string::npos) << e.what();
    }
}

}  // namespace
}  // namespace mixtape
