// Moments in every format, and weights with every kind of master, on every device: against the formulas in float64, and
// the same bits however the buffers are cut.
#include <bit>
#include <cmath>
#include <map>

#include "core/ops/stochastic_rounding.h"
#include "tests/ops/update_bench.h"

namespace mixtape {
namespace {

// What a code stands for, before its scale, and its neighbours: the definition, by a table.
struct Table {
  explicit Table(DType type) {
    for (int c = 0; c < 256; ++c) {
      const double s = int8_t(c), u = c;
      const double value = type == DType::i8     ? s * std::abs(s) / (127 * 127)
                           : type == DType::u8   ? std::pow(u / 255, 4)
                           : type == DType::e4m3 ? double(float(e4m3::from_code(uint8_t(c))))
                                                 : double(float(e5m2::from_code(uint8_t(c))));
      of_code.push_back(value);
      const bool used = std::isfinite(value) && !(type == DType::i8 && c == 128);
      if (used && !(type == DType::e5m2 && c > 127)) sorted.push_back(value);
    }
    std::sort(sorted.begin(), sorted.end());
    top = sorted.back();
  }
  double below(double x) const {
    const auto next = std::upper_bound(sorted.begin(), sorted.end(), x);
    return next == sorted.begin() ? sorted.front() : *(next - 1);
  }
  double above(double x) const {
    const auto next = std::upper_bound(sorted.begin(), sorted.end(), x);
    return next == sorted.end() ? sorted.back() : *next;
  }
  Doubles of_code, sorted;
  double top = 1;
};
const Table& table_of(DType type) {
  static const std::map<DType, Table> tables = {{DType::i8, Table(DType::i8)},
                                                {DType::u8, Table(DType::u8)},
                                                {DType::e4m3, Table(DType::e4m3)},
                                                {DType::e5m2, Table(DType::e5m2)}};
  return tables.at(type);
}

Doubles decoded(const Bench& b, const Moment& m) {
  if (m.values.dtype() == DType::f32) {
    const Floats f = b.get<float>(m.values);
    return {f.begin(), f.end()};
  }
  Doubles values;
  if (m.values.dtype() == DType::bf16) {
    for (const uint16_t code : [&] {
           std::vector<uint16_t> codes(size_t(m.values.count()));
           (*b).copy_to_host(codes.data(), m.values);
           return codes;
         }())
      values.push_back(double(float(bf16::from_code(code))));
    return values;
  }
  const Table& table = table_of(m.values.dtype());
  const Floats scales = b.get<float>(m.scales);
  const std::vector<std::byte> codes = b.bits(m.values);
  for (size_t i = 0; i < codes.size(); ++i)
    values.push_back(table.of_code[size_t(codes[i])] * scales[i / moment_block]);
  return values;
}

const std::array formats = {MomentFormat::fp32, MomentFormat::bf16, MomentFormat::int8, MomentFormat::fp8};
std::string name_of(MomentFormat f) { return std::array{"fp32", "bf16", "int8", "fp8"}[size_t(f)]; }

// A buffer of ranges that begin where blocks do: with a bit of one, with none but whole ones, across chunks.
const std::vector<UpdateRange> ranges = {
    {.offset = 0, .count = 1000, .weight_decay = 0.1f, .parameter = 0},
    {.offset = 1024, .count = 1, .parameter = 1},
    {.offset = 1280, .count = 64256, .lr_factor = 0.5f, .weight_decay = 0.1f, .parameter = 2},
    {.offset = 65536, .count = 515, .weight_decay = 0.1f, .parameter = 2, .first = 64256},
};
constexpr int64_t total = 65536 + 768;
constexpr float beta1 = 0.9f, beta2 = 0.95f;

bool in_a_range(int64_t i) {
  return std::any_of(ranges.begin(), ranges.end(),
                     [&](const UpdateRange& r) { return i >= r.offset && i < r.offset + r.count; });
}

struct Buffers {
  Tensor w, master, g;
  Moment m, v;
};
void step(Bench& b, const Buffers& x, const StepState& s, const std::vector<UpdateRange>& of = ranges) {
  adamw(*b, {.state = b.state(s),
             .weights = x.w,
             .master = x.master,
             .gradients = x.g,
             .m = x.m,
             .v = x.v,
             .ranges = of.data(),
             .n_ranges = int64_t(of.size()),
             .beta1 = beta1,
             .beta2 = beta2,
             .eps = 1e-8f,
             .seed = 5});
}
StepState state_of(int64_t update) {
  return {.attempts = uint64_t(update), .updates = uint64_t(update), .learning_rate = 0.01f, .grad_factor = 0.5f};
}

// A moment that should be `exact`, all elements of a block given: one of the two neighbours.
void expect_neighbour(DType type, double got, double exact, double largest_of_block, int64_t i) {
  const double slack = 1e-5 * std::abs(exact) + 1e-6 * largest_of_block;
  if (size_of(type) > 1) {
    EXPECT_NEAR(got, exact, (type == DType::f32 ? 0 : std::abs(exact) / 128) + slack) << i;
    return;
  }
  const Table& table = table_of(type);
  const double scale = largest_of_block / table.top, x = exact / scale, near = 1e-5 * std::abs(x) + 1e-9;
  double low = table.below(x - near), high = table.above(x + near);
  if (type == DType::u8 || type == DType::e5m2) low = std::max(low, table.sorted[1]);
  EXPECT_GE(got, low * scale - slack) << i;
  EXPECT_LE(got, std::max(low, high) * scale + slack) << i;
}

// Three steps; each begins with what the one before has stored, as a table decodes it.
TEST(Moments, AdamWFollowsTheFormulaInEveryFormat) {
  for (const TestDevice& device : update_devices())
    for (const MomentFormat format : formats)
      for (const DType of_gradients : {DType::f32, DType::bf16}) {
        SCOPED_TRACE(device.name + " " + name_of(format) + " " + std::string(mixtape::name_of(of_gradients)));
        Bench b(device);
        const DType type_m = first_moment_type(format), type_v = second_moment_type(format);
        Buffers x{b.put(normals(total, 1)), {}, {}, b.zeros(type_m, total), b.zeros(type_v, total)};
        for (int64_t t = 0; t < 3; ++t) {
          const Floats before = b.get<float>(x.w);
          const Doubles m0 = decoded(b, x.m), v0 = decoded(b, x.v);
          Floats g = normals(total, 10 + uint64_t(t), 1);
          for (float& value : g) value = of_gradients == DType::bf16 ? float(bf16(value)) : value;
          x.g = b.put_as(g, of_gradients);
          step(b, x, state_of(t));
          const Floats after = b.get<float>(x.w);
          const Doubles m1 = decoded(b, x.m), v1 = decoded(b, x.v);
          Doubles m(total), v(total), most_m(total / moment_block), most_v(total / moment_block);
          for (const UpdateRange& r : ranges)
            for (int64_t i = r.offset; i < r.offset + r.count; ++i) {
              const double gradient = 0.5 * g[i], lr = 0.01 * r.lr_factor;
              m[i] = beta1 * m0[i] + (1 - beta1) * gradient;
              v[i] = beta2 * v0[i] + (1 - beta2) * gradient * gradient;
              const double expected =
                  before[i] * (1 - lr * r.weight_decay) -
                  lr * m[i] / (1 - std::pow(beta1, t + 1)) / (std::sqrt(v[i] / (1 - std::pow(beta2, t + 1))) + 1e-8);
              ASSERT_NEAR(after[i], expected, 4e-6 * (1 + std::abs(expected))) << "step " << t << " element " << i;
              most_m[i / moment_block] = std::max(most_m[i / moment_block], std::abs(m[i]));
              most_v[i / moment_block] = std::max(most_v[i / moment_block], v[i]);
            }
          for (int64_t i = 0; i < total; ++i) {
            if (!in_a_range(i)) {
              ASSERT_EQ(after[i], before[i]) << i;
              continue;
            }
            expect_neighbour(type_m, m1[i], m[i], most_m[i / moment_block], i);
            expect_neighbour(type_v, v1[i], v[i], most_v[i / moment_block], i);
            ASSERT_FALSE(testing::Test::HasFailure()) << "step " << t;
          }
        }
      }
}

// Over many attempts the numbers' mean is what they were rounded from.
TEST(Moments, RoundingIsRightInTheMean) {
  constexpr int64_t n = 512;
  constexpr int attempts = 600;
  const UpdateRange range{.offset = 0, .count = n, .parameter = 3};
  for (const TestDevice& device : update_devices())
    for (const MomentFormat format : {MomentFormat::bf16, MomentFormat::int8, MomentFormat::fp8}) {
      SCOPED_TRACE(device.name + " " + name_of(format));
      Bench b(device);
      const Floats g = normals(n, 2, 0.5);
      const Tensor gradients = b.put(g), w = b.put(Floats(n));
      Doubles mean_m(n), mean_v(n), low_m(n, INFINITY), high_m(n, -INFINITY), low_v = low_m, high_v = high_m;
      for (int a = 0; a < attempts; ++a) {
        const Moment m = b.zeros(first_moment_type(format), n), v = b.zeros(second_moment_type(format), n);
        adamw(*b, {.state = b.state({.attempts = uint64_t(a), .learning_rate = 0}),
                   .weights = w,
                   .gradients = gradients,
                   .m = m,
                   .v = v,
                   .ranges = &range,
                   .n_ranges = 1,
                   .beta1 = 0,
                   .beta2 = 0,
                   .eps = 1e-8f});
        const Doubles as_m = decoded(b, m), as_v = decoded(b, v);
        for (int64_t i = 0; i < n; ++i) {
          mean_m[i] += as_m[i] / attempts, mean_v[i] += as_v[i] / attempts;
          low_m[i] = std::min(low_m[i], as_m[i]), high_m[i] = std::max(high_m[i], as_m[i]);
          low_v[i] = std::min(low_v[i], as_v[i]), high_v[i] = std::max(high_v[i], as_v[i]);
        }
      }
      // A mean of so many draws is off by less than six of its standard deviations, which are at most half of what lies
      // between two neighbours, over the root of their number; below its least code a second moment is rounded up.
      const double deviations = 6 * 0.5 / std::sqrt(double(attempts));
      int64_t both = 0;
      for (int64_t i = 0; i < n; ++i) {
        const double exact = double(g[i]) * g[i], off = 1e-5;
        if (low_m[i] < high_m[i]) {
          ASSERT_NEAR(mean_m[i], g[i], deviations * (high_m[i] - low_m[i]) + off * std::abs(g[i])) << i;
        }
        if (low_v[i] < high_v[i]) {
          ASSERT_NEAR(mean_v[i], exact, deviations * (high_v[i] - low_v[i]) + off * exact) << i;
        }
        both += low_m[i] < high_m[i] && low_v[i] < high_v[i];
      }
      EXPECT_GT(both, n / 2);
    }
}

// A second moment of which 999/1000 stay in each step. To nearest it would stay where it is.
TEST(Moments, SmallChangesAreNotLost) {
  constexpr int64_t n = 1024;
  constexpr int steps = 1000;
  const UpdateRange range{.offset = 0, .count = n};
  for (const TestDevice& device : update_devices())
    for (const MomentFormat format : formats) {
      if (device.name != "cpu" && format != MomentFormat::int8) continue;  // a thousand steps on an emulator
      Bench b(device);
      const Moment m = b.zeros(first_moment_type(format), n), v = b.zeros(second_moment_type(format), n);
      const Tensor w = b.put(Floats(n));
      // The first of each block stays large, so that the scale does not fall with the others.
      Floats g(n, 1.f);
      for (int64_t i = 0; i < n; i += moment_block) g[i] = 2;
      for (int a = 0; a <= steps; ++a) {
        if (a == 1)
          for (int64_t i = 0; i < n; ++i)
            if (i % moment_block) g[i] = 0;
        adamw(*b, {.state = b.state({.attempts = uint64_t(a), .learning_rate = 0}),
                   .weights = w,
                   .gradients = b.put(g),
                   .m = m,
                   .v = v,
                   .ranges = &range,
                   .n_ranges = 1,
                   .beta1 = 0.9f,
                   .beta2 = a == 0 ? 0.f : 0.999f,
                   .eps = 1e-8f});
      }
      double mean = 0;
      for (const double x : decoded(b, v)) mean += x < 3 ? x / double(n - n / moment_block) : 0;
      EXPECT_NEAR(mean, std::pow(0.999, steps), 0.04) << device.name << " " << name_of(format);
      for (const double x : decoded(b, m)) EXPECT_TRUE(x == 0 || std::abs(x) > 1 || std::abs(x) < 0.02) << x;
    }
}

// By threads, by ranges, by shards of the buffers, on the emulator by the order of warps: the same bits.
TEST(Moments, BitsDoNotDependOnHowBuffersAreCut) {
  for (const TestDevice& device : update_devices())
    for (const MomentFormat format : formats)
      for (const DType master : {DType::f32, DType::u16, DType::bf16}) {  // bf16: none
        std::vector<std::vector<std::byte>> expected;
        for (const int run : {0, 1, 2}) {
          Bench b(device, 1 << run);
          const Floats start = normals(total, 1);
          Buffers x{b.put_as(start, DType::bf16),
                    {},
                    b.put(normals(total, 2, 1)),
                    b.zeros(first_moment_type(format), total),
                    b.zeros(second_moment_type(format), total)};
          if (master == DType::f32) x.master = b.put(start);
          if (master == DType::u16) x.master = b.put(std::vector<uint16_t>(total, 7));
          for (int64_t t = 0; t < 2; ++t) {
            if (run < 2) {
              step(b, x, state_of(t));
              continue;
            }
            // Two ranks, of which the second has what begins at the second chunk.
            for (const auto& [begin, count] :
                 {std::pair{int64_t(0), chunk_elements}, {chunk_elements, total - chunk_elements}}) {
              const auto cut = [&, b0 = begin, n = count](const Tensor& t) {
                return t ? Tensor(t.raw() + b0 * size_of(t.dtype()), {n}, t.dtype()) : t;
              };
              std::vector<UpdateRange> own;
              for (UpdateRange r : ranges)
                if (r.offset >= begin && r.offset < begin + count) r.offset -= begin, own.push_back(r);
              step(b, {cut(x.w), cut(x.master), cut(x.g), x.m.part(begin, count), x.v.part(begin, count)}, state_of(t),
                   own);
            }
          }
          std::vector<std::vector<std::byte>> bits;
          for (const Tensor& t : {x.w, x.master, x.m.values, x.m.scales, x.v.values, x.v.scales})
            bits.push_back(b.bits(t));
          if (expected.empty()) expected = bits;
          EXPECT_EQ(bits, expected) << device.name << " " << name_of(format) << " run " << run;
        }
      }
}

// What is all 0, too small for a scale, or beyond float32.
TEST(Moments, EndsOfTheRange) {
  const UpdateRange range{.offset = 0, .count = 768};
  for (const TestDevice& device : update_devices())
    for (const MomentFormat format : {MomentFormat::int8, MomentFormat::fp8}) {
      Bench b(device);
      Buffers x{b.put(Floats(768, 1.f)),
                {},
                {},
                b.zeros(first_moment_type(format), 768),
                b.zeros(second_moment_type(format), 768)};
      Floats g(768, 0.f);
      std::fill_n(g.begin() + 256, 256, 1e-30f);
      g[512] = 1e30f, g[513] = 1;
      x.g = b.put(g);
      const std::vector<UpdateRange> one = {range};
      step(b, x, state_of(0), one);
      for (const Doubles& moment : {decoded(b, x.m), decoded(b, x.v)})
        for (size_t i = 0; i < moment.size(); ++i) EXPECT_TRUE(std::isfinite(moment[i])) << i;
      for (const float w : b.get<float>(x.w)) EXPECT_TRUE(std::isfinite(w));
      EXPECT_EQ(decoded(b, x.v)[0], 0);
      EXPECT_GT(decoded(b, x.v)[513], 0) << "above 0, so not 0";
    }
}

// The bits of a run with float32 masters, weights and masters, ties of the rounding to bf16 included.
TEST(Masters, RemaindersAreFloat32Exactly) {
  for (const TestDevice& device : update_devices()) {
    Bench b(device);
    Floats start = normals(total, 1);
    for (int64_t i = 0; i < 512; ++i)  // on a tie, and beside one
      start[i] =
          std::bit_cast<float>((std::bit_cast<uint32_t>(start[i]) & 0xffff0000u) + 0x8000u + uint32_t(i % 3) - 1);
    std::vector<bf16> weights(total);
    std::vector<uint16_t> rest(total);
    for (int64_t i = 0; i < total; ++i) {
      weights[i] = rounded_weight<bf16>(start[i]), rest[i] = remainder_of(start[i]);
      ASSERT_EQ(std::bit_cast<uint32_t>(master_of(weights[i], rest[i])), std::bit_cast<uint32_t>(start[i])) << i;
    }
    const auto moments = [&](DType type) { return b.zeros(type, total); };
    Buffers with{b.put(weights, DType::bf16), b.put(start), {}, moments(DType::f32), moments(DType::f32)};
    Buffers without{b.put(weights, DType::bf16), b.put(rest), {}, moments(DType::f32), moments(DType::f32)};
    for (int64_t t = 0; t < 3; ++t) {
      with.g = without.g = b.put(normals(total, 20 + uint64_t(t)));
      StepState s = state_of(t);
      if (t == 0) s.learning_rate = 0;  // ties stay ties
      step(b, with, s);
      step(b, without, s);
      ASSERT_EQ(b.bits(with.w), b.bits(without.w)) << device.name << " step " << t;
      const Floats master = b.get<float>(with.master);
      std::vector<bf16> now(total);
      (*b).copy_to_host(now.data(), without.w);
      const auto low = b.get<uint16_t>(without.master);
      for (int64_t i = 0; i < total; ++i) ASSERT_EQ(master_of(now[i], low[i]), master[i]) << i;
    }
  }
}

TEST(Moments, WhatCannotBeIsRefused) {
  Bench b(update_devices().front());
  const Tensor w = b.put(Floats(600)), g = b.put(Floats(600));
  const auto update = [&](const Moment& m, const Moment& v, int64_t offset, const Tensor& master = {}) {
    const std::vector<UpdateRange> one = {{.offset = offset, .count = 100}};
    step(b, {w, master, g, m, v}, state_of(0), one);
  };
  const Moment fp32 = b.zeros(DType::f32, 600), i8 = b.zeros(DType::i8, 600), u8 = b.zeros(DType::u8, 600);
  EXPECT_NO_THROW(update(i8, u8, 256));
  EXPECT_NO_THROW(update(fp32, fp32, 10));
  EXPECT_THROW(update(i8, u8, 10), Error) << "inside of a block";
  EXPECT_THROW(update(u8, u8, 0), Error) << "a first moment has a sign";
  EXPECT_THROW(update(i8, i8, 0), Error);
  EXPECT_THROW(update(Moment(i8.values), u8, 0), Error) << "no scales";
  EXPECT_THROW(update(Moment(b.put(Floats(100))), fp32, 0), Error);
  EXPECT_THROW(update(fp32, fp32, 0, b.put(std::vector<uint16_t>(600))), Error) << "remainders of float32";
  EXPECT_THROW((void)i8.part(100, 100), Error);
}

// Why int8 has roots: the error of m / sqrt(v), relative to its size, over blocks in which moments differ by factors of
// exp(spread), beside linear codes and the table of Dettmers et al. (bitsandbytes, create_dynamic_map).
TEST(Moments, RootsAreCloserThanALinearCodeOrATable) {
  const auto dynamic = [](bool with_sign) {
    Doubles t = {0, 1};
    for (int decade = 0; decade < 7; ++decade) {
      const int n = with_sign ? 1 << decade : 2 << decade;
      for (int i = 0; i < n; ++i) {
        const double x = std::pow(10, decade - 6) * (0.1 + 0.9 * (i + 0.5) / n);
        t.push_back(x);
        if (with_sign) t.push_back(-x);
      }
    }
    std::sort(t.begin(), t.end());
    return t;
  };
  const auto power = [](int levels, int exponent, bool with_sign) {
    Doubles t;
    for (int c = with_sign ? -levels : 0; c <= levels; ++c)
      t.push_back(std::copysign(std::pow(std::abs(double(c)) / levels, exponent), c));
    return t;
  };
  const auto nearest = [](const Doubles& t, double x) {
    const auto next = std::upper_bound(t.begin(), t.end(), x);
    if (next == t.end()) return t.back();
    return next == t.begin() || *next - x < x - *(next - 1) ? *next : *(next - 1);
  };
  const auto error = [&](const Doubles& codes_m, const Doubles& codes_v, double spread) {
    double wrong = 0, size = 0;
    for (uint64_t block = 0; block < 40; ++block) {
      const Floats a = normals(moment_block, 100 + block), c = normals(moment_block, 200 + block);
      Doubles m(moment_block), v(moment_block);
      double most_m = 0, most_v = 0;
      for (size_t i = 0; i < m.size(); ++i) {
        v[i] = std::exp(spread * a[i]), m[i] = 0.23 * std::sqrt(v[i]) * c[i];
        most_m = std::max(most_m, std::abs(m[i])), most_v = std::max(most_v, v[i]);
      }
      const double least = *std::upper_bound(codes_v.begin(), codes_v.end(), 0);
      for (size_t i = 0; i < m.size(); ++i) {
        const double exact = m[i] / std::sqrt(v[i]);
        const double stored = nearest(codes_m, m[i] / most_m) * most_m /
                              std::sqrt(std::max(least, nearest(codes_v, v[i] / most_v)) * most_v);
        wrong += (stored - exact) * (stored - exact), size += exact * exact;
      }
    }
    return std::sqrt(wrong / size);
  };
  for (const double spread : {0.5, 1.0, 2.0, 3.0, 4.0}) {
    const double roots = error(power(127, 2, true), power(255, 4, false), spread);
    EXPECT_LT(roots, error(power(127, 1, true), power(255, 1, false), spread)) << spread;
    EXPECT_LT(roots, error(power(127, 1, true), power(255, 2, false), spread)) << spread;
    EXPECT_LT(roots, error(dynamic(true), dynamic(false), spread)) << spread;
    if (spread == 2) {
      EXPECT_LT(roots, 0.03);
    }
  }
}

}  // namespace
}  // namespace mixtape
