// The update of flat buffers on the CUDA back end beside the CPU's: norms, AdamW and Adafactor.
#include <bit>
#include <cmath>

#include "core/ops/optimizer_pieces.h"
#include "tests/cuda/device.h"

namespace mixtape {
namespace {

const StepState before_update{.attempts = 3,
                              .updates = 4,
                              .philox = philox_key(42, 3, 1),
                              .loss_scale = 4,
                              .inverse_targets = 0.25f,
                              .learning_rate = 0.01f};

// Three chunks and a bit, with padding between ranges that must neither count nor change, one of them misaligned.
const std::vector<UpdateRange> ranges = {{0, 1000, 1, 0.1f},
                                         {1025, 64511, 1, 0.f},
                                         {65536, 65536, 0.5f, 0.1f},
                                         {131072, 65529, 1, 0.1f},
                                         {196608, 13, 1, 0.1f}};
constexpr int64_t total = 196640;

TEST(UpdateAgreement, GradientNorm) {
  for (const float clip : {0.f, 1.f, 1e6f}) {
    std::vector<StepState> results;
    for (const bool cuda : {false, true}) {
      Device d = cuda ? emulated() : cpu();
      const Tensor g = d.normal({total}, DType::f32, 1);
      StepState* s = d.upload_state(before_update);
      gradient_norm(
          *d, {.state = s, .gradients = g, .ranges = ranges.data(), .n_ranges = int64_t(ranges.size()), .clip = clip});
      results.push_back(d.state());
      // The same bits from squares made in parts.
      const auto n = int64_t(ranges.size());
      const Tensor squares = d->make({n}, DType::i64);
      for (const int64_t at : {int64_t(0), int64_t(1)})
        range_squares(*d, {.squares = squares.columns(at, at ? n - 1 : 1),
                           .gradients = g,
                           .ranges = ranges.data() + at,
                           .n_ranges = at ? n - 1 : 1});
      gradient_norm(*d, {.state = s, .ranges = ranges.data(), .n_ranges = n, .clip = clip, .squares = squares});
      EXPECT_EQ(d.state().grad_norm, results.back().grad_norm);
      EXPECT_EQ(d.state().grad_factor, results.back().grad_factor);
    }
    EXPECT_NEAR(results[1].grad_norm / results[0].grad_norm, 1, 1e-6);
    EXPECT_NEAR(results[1].grad_factor / results[0].grad_factor, 1, 1e-6);
    EXPECT_EQ(results[1].finite, 1);
  }
}

TEST(UpdateAgreement, GradientNormInParts) {
  for (const DType type : {DType::f32, DType::bf16}) {
    std::vector<StepState> results;
    for (const bool cuda : {false, true}) {
      Device d = cuda ? emulated() : cpu();
      const Tensor g = d.normal({total}, type, 1);
      StepState so_far = before_update;
      so_far.grad_squares = 3e5, so_far.last_norm = 5;
      StepState* s = d.upload_state(so_far);
      gradient_norm(*d, {.state = s,
                         .gradients = g,
                         .ranges = ranges.data(),
                         .n_ranges = int64_t(ranges.size()),
                         .clip = 1,
                         .adds = true});
      results.push_back(d.state());
    }
    EXPECT_GT(results[0].grad_squares, 4e5);
    EXPECT_NEAR(results[1].grad_squares / results[0].grad_squares, 1, 1e-9);
    EXPECT_NEAR(results[1].grad_norm / results[0].grad_norm, 1, 1e-6);
    EXPECT_NEAR(results[1].grad_factor / results[0].grad_factor, 1, 1e-6);
  }
}

TEST(UpdateAgreement, TheNormSeesEveryValueThatIsNotFinite) {
  Device d = emulated();
  const std::vector<UpdateRange> two = {{0, 5000}, {65536, 77}};
  std::vector<float> g(65536 + 80, 1e30f);  // squares that float32 could not hold
  g[5001] = NAN;                            // in no range
  const auto norm = [&] {
    StepState* s = d.upload_state(before_update);
    gradient_norm(*d, {.state = s, .gradients = d.upload(g), .ranges = two.data(), .n_ranges = 2, .clip = 1});
    return d.state();
  };
  EXPECT_EQ(norm().finite, 1);
  EXPECT_NEAR(norm().grad_norm * 4 / (1e30 * std::sqrt(5077.0)), 1, 1e-6);
  for (const size_t at : {size_t(0), size_t(1234), size_t(4999), size_t(65536), size_t(65536 + 76)})
    for (const float bad : {INFINITY, -INFINITY, NAN}) {
      g[at] = bad;
      const StepState s = norm();
      EXPECT_EQ(s.finite, 0) << at;
      EXPECT_EQ(std::isnan(s.grad_norm), std::isnan(bad));
      EXPECT_EQ(s.grad_factor, 0);
      g[at] = 1e30f;
    }
}

struct Updated {
  std::vector<float> master, m, v;
  std::vector<std::byte> weights;
};
Updated update(Device d, DType type, int32_t finite) {
  StepState s = before_update;
  s.grad_factor = 0.5f;
  s.finite = finite;
  const Tensor master = d.normal({total}, DType::f32, 1), m = d.normal({total}, DType::f32, 2),
               v = d.normal({total}, DType::f32, 3), g = d.normal({total}, DType::f32, 4);
  auto squares = d.values<float>(v);
  for (float& x : squares) x *= x;
  d->copy_from_host(v, squares.data());
  const Tensor weights = type == DType::f32 ? master : d.normal({total}, type, 1);
  adamw(*d, {.state = d.upload_state(s),
             .weights = weights,
             .master = type == DType::f32 ? Tensor{} : master,
             .gradients = g,
             .m = m,
             .v = v,
             .ranges = ranges.data(),
             .n_ranges = int64_t(ranges.size()),
             .beta1 = 0.9f,
             .beta2 = 0.95f,
             .eps = 1e-8f});
  return {d.values<float>(master), d.values<float>(m), d.values<float>(v), d.bits(weights)};
}

TEST(UpdateAgreement, AdamW) {
  for (const DType type : {DType::f32, DType::bf16, DType::f16}) {
    const Updated before = update(cpu(), type, 0), want = update(cpu(), type, 1), got = update(emulated(), type, 1);
    EXPECT_NE(before.master, want.master);
    for (size_t i = 0; i < size_t(total); ++i) {
      ASSERT_NEAR(got.master[i], want.master[i], 1e-6 * (1 + std::abs(want.master[i]))) << i;
      ASSERT_NEAR(got.m[i], want.m[i], 1e-6) << i;
      ASSERT_NEAR(got.v[i], want.v[i], 1e-6 * (1 + want.v[i])) << i;
    }
    const Updated skipped = update(emulated(), type, 0);
    EXPECT_EQ(skipped.master, before.master);
    EXPECT_EQ(skipped.weights, before.weights);
    EXPECT_EQ(update(emulated(7), type, 1).weights, got.weights);
    if (type != DType::bf16) continue;
    for (const UpdateRange& r : ranges)  // the rounded copy of the master
      for (int64_t i = r.offset; i < r.offset + r.count; ++i)
        ASSERT_EQ(reinterpret_cast<const bf16*>(got.weights.data())[i].code,
                  rounded_weight<bf16>(got.master[size_t(i)]).code)
            << i;
  }
}

// Weights of 16 bits alone, in steps that both compute exactly: the same random numbers, and so the same bits.
TEST(UpdateAgreement, AdamWWithoutMaster) {
  std::vector<UpdateRange> parts = ranges;
  for (size_t i = 0; i < parts.size(); ++i) {
    parts[i].weight_decay = 0;
    parts[i].parameter = uint32_t(3 * i);
    parts[i].first = int64_t(i % 2 ? 13 * i : 0);  // so that draws begin inside a thread's elements, too
  }
  for (const DType type : {DType::bf16, DType::f16}) {
    std::vector<std::vector<std::byte>> results;
    for (const int run : {0, 1, 2}) {
      Device d = run == 0 ? cpu() : emulated(uint64_t(run));
      const Tensor w = d.normal({total}, type, 1), before = d.normal({total}, type, 1),
                   m = d.upload(std::vector<float>(total)), v = d.upload(std::vector<float>(total));
      std::vector<float> g(total);
      for (size_t i = 0; i < g.size(); ++i) g[i] = (i % 3 ? 1.f : -1.f) * std::ldexp(1.f, int(i % 9) - 4);
      adamw(*d, {.state = d.upload_state(before_update),
                 .weights = w,
                 .gradients = d.upload(g),
                 .m = m,
                 .v = v,
                 .ranges = parts.data(),
                 .n_ranges = int64_t(parts.size()),
                 .beta1 = 0,
                 .beta2 = 0,
                 .eps = 0,
                 .bias_correction = false,
                 .seed = 9});
      results.push_back(d.bits(w));
      EXPECT_NE(results.back(), d.bits(before));
    }
    EXPECT_EQ(results[0], results[1]);
    EXPECT_EQ(results[1], results[2]);
  }
}

// Without bias correction, and with steps relative to the tensors of which the ranges are parts.
std::vector<float> scaled_update(Device d, bool corrects) {
  const std::vector<UpdateTensor> tensors = {{.offset = 0, .rows = 300, .cols = 301}, {.offset = 100000, .cols = 77}};
  std::vector<UpdateRange> pieces = pieces_of(tensors.data(), 2);
  const Tensor w = d.normal({total}, DType::f32, 1), m = d.normal({total}, DType::f32, 2),
               g = d.normal({total}, DType::f32, 4), scales = d.make({2}, DType::f32),
               v = d.upload(std::vector<float>(total, 0.5f));
  parameter_scales(*d, {scales, w, tensors.data(), 2, 1e-3f});
  adamw(*d, {.state = d.upload_state(before_update),
             .weights = w,
             .gradients = g,
             .m = m,
             .v = v,
             .ranges = pieces.data(),
             .n_ranges = int64_t(pieces.size()),
             .beta1 = 0.9f,
             .beta2 = 0.95f,
             .eps = 1e-8f,
             .bias_correction = corrects,
             .scales = scales});
  std::vector<float> all = d.values<float>(w), size = d.values<float>(scales);
  all.insert(all.end(), size.begin(), size.end());
  return all;
}

TEST(UpdateAgreement, AdamWWithScales) {
  for (const bool corrects : {false, true}) {
    const std::vector<float> want = scaled_update(cpu(), corrects), got = scaled_update(emulated(), corrects);
    for (size_t i = 0; i < want.size(); ++i) ASSERT_NEAR(got[i], want[i], 1e-6 * (1 + std::abs(want[i]))) << i;
  }
  EXPECT_NE(scaled_update(emulated(), false), scaled_update(emulated(), true));
}

Updated adafactor_update(Device d, DType type, bool momentum, int32_t finite) {
  std::vector<UpdateTensor> tensors = {{.rows = 300, .cols = 67, .weight_decay = 0.1f},
                                       {.offset = 20480, .rows = 1, .cols = 400, .lr_factor = 0.5f},
                                       {.offset = 20992, .rows = 41, .cols = 1700}};
  int64_t moments = 0;
  for (UpdateTensor& t : tensors) {
    t.column_moments = moments, t.row_moments = moments + t.cols;
    moments += t.cols + t.rows;
  }
  StepState s = before_update;
  s.grad_factor = 0.5f;
  s.finite = finite;
  const Tensor master = d.normal({total}, DType::f32, 1), m = d.normal({total}, DType::f32, 2),
               g = d.normal({total}, DType::f32, 4), v = d.upload(std::vector<float>(size_t(moments), 0.25f));
  const Tensor weights = type == DType::f32 ? master : d.normal({total}, type, 1);
  adafactor(*d, {.state = d.upload_state(s),
                 .weights = weights,
                 .master = type == DType::f32 ? Tensor{} : master,
                 .gradients = g,
                 .m = momentum ? m : Tensor{},
                 .v = v,
                 .tensors = tensors.data(),
                 .n_tensors = 3,
                 .beta1 = 0.9f,
                 .clip_threshold = 0.5f,
                 .scales = d.upload<float>({0.5f, 2, 1})});
  return {d.values<float>(master), d.values<float>(m), d.values<float>(v), d.bits(weights)};
}

TEST(UpdateAgreement, Adafactor) {
  for (const DType type : {DType::f32, DType::bf16})
    for (const bool momentum : {false, true}) {
      if (sanitized && (type == DType::f32 || !momentum)) continue;  // the other has all kernels
      const Updated want = adafactor_update(cpu(), type, momentum, 1);
      const Updated got = adafactor_update(emulated(), type, momentum, 1);
      const Updated before = adafactor_update(cpu(), type, momentum, 0);
      EXPECT_NE(before.master, want.master);
      for (size_t i = 0; i < want.master.size(); ++i) {
        ASSERT_NEAR(got.master[i], want.master[i], 2e-6 * (1 + std::abs(want.master[i]))) << i;
        ASSERT_NEAR(got.m[i], want.m[i], 2e-6) << i;
      }
      for (size_t i = 0; i < want.v.size(); ++i) ASSERT_NEAR(got.v[i], want.v[i], 2e-6 * (1 + want.v[i])) << i;
      const Updated skipped = adafactor_update(emulated(), type, momentum, 0);
      EXPECT_EQ(skipped.master, before.master);
      EXPECT_EQ(skipped.v, before.v);
      EXPECT_EQ(skipped.weights, before.weights);
      EXPECT_EQ(adafactor_update(emulated(7), type, momentum, 1).weights, got.weights);
    }
}

}  // namespace
}  // namespace mixtape
