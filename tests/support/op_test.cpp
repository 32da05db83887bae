#include "tests/support/op_test.h"

#include <algorithm>
#include <set>

#include "core/base/dispatch.h"
#include "core/base/philox.h"
#include "core/cpu/parallel.h"
#include "cuda/emulator/sanitizers.h"

namespace mixtape {
namespace {

constexpr int64_t test_memory = int64_t(4) << 30;  // reserved, resident only where touched
constexpr int64_t device_memory = int64_t(1) << 30;

// A stream of numbers for inputs, seeds and sampled elements.
struct Numbers {
  uint64_t seed, next = 0;
  std::array<uint32_t, 4> draw() { return philox(philox_key(seed), next++, 0, Purpose::test); }
  double normal() {
    const auto bits = draw();
    return mixtape::normal(bits[0], bits[1]);
  }
  uint64_t below(uint64_t n) {
    const auto bits = draw();
    return ((uint64_t(bits[0]) << 32) | bits[1]) % n;
  }
};

Numbers numbers_for(const Shape& shape, uint64_t salt) {
  uint64_t seed = salt;
  for (int i = 0; i < shape.rank(); ++i) seed = mix64(seed ^ uint64_t(shape[i] + 1));
  return {seed};
}

// Inputs of one shape differ by a running number, restarted for each description.
uint64_t input_number = 0;

std::vector<std::byte> bits_of(Backend& backend, const Tensor& t) {
  std::vector<std::byte> bits(t.bytes());
  backend.copy_to_host(bits.data(), t);
  return bits;
}

Array to_array(const std::vector<std::byte>& bits, const Tensor& t) {
  Array a(t.shape());
  dispatch<float, fp16, bf16>(t.dtype(), "test", [&]<class T>() {
    const T* values = reinterpret_cast<const T*>(bits.data());
    for (int64_t i = 0; i < a.count(); ++i) a[i] = float(values[i]);
  });
  return a;
}

Tensor upload(Backend& backend, const Array& a, DType type) {
  const Tensor t = backend.make(a.shape(), type);
  if (type == DType::i32) {
    std::vector<int32_t> values(a.count());
    for (int64_t i = 0; i < a.count(); ++i) values[i] = int32_t(a[i]);
    backend.copy_from_host(t, values.data());
  } else {
    dispatch<float, fp16, bf16>(type, "test", [&]<class T>() {
      std::vector<T> values(a.count());
      for (int64_t i = 0; i < a.count(); ++i) values[i] = T(float(a[i]));
      backend.copy_from_host(t, values.data());
    });
  }
  return t;
}

DType type_of(const Input& input, DType type) {
  if (input.kind == Input::integer) return DType::i32;
  return input.kind == Input::constant ? DType::f32 : type;
}

bool has_gradient(const Input& input) { return input.kind == Input::activation || input.kind == Input::parameter; }

DType gradient_type(const Input& input, const OpRunOptions& options) {
  return input.kind == Input::parameter && !options.narrow_gradients ? DType::f32 : options.type;
}

Arrays values_of(const Inputs& inputs) {
  Arrays values;
  for (const Input& input : inputs) values.push_back(input.values);
  return values;
}

// sum over outputs of weight * output: the scalar whose gradient is checked.
double objective(const OpTest& test, const Arrays& inputs, const Sizes& sizes, const Arrays& weights) {
  const Arrays outputs = test.reference(inputs, sizes);
  double sum = 0;
  for (size_t o = 0; o < outputs.size(); ++o)
    if (weights[o].count())
      for (int64_t i = 0; i < outputs[o].count(); ++i) sum += weights[o][i] * outputs[o][i];
  return sum;
}

// Central differences in float64. The step balances truncation (h^2) against cancellation (eps / h).
template <class Move>
double difference(const OpTest& test, Arrays inputs, const Sizes& sizes, const Arrays& weights, Move&& move) {
  constexpr double h = 1e-5;
  Arrays up = inputs, down = inputs;
  move(up, h);
  move(down, -h);
  return (objective(test, up, sizes, weights) - objective(test, down, sizes, weights)) / (2 * h);
}

// What sanitizers look for does not lie in the reference, which takes most of the time.
constexpr bool sanitized = MIXTAPE_ASAN || MIXTAPE_TSAN;

std::vector<int64_t> elements_to_check(const Array& a, int64_t total_inputs) {
  std::set<int64_t> picked;
  if (total_inputs <= 512 && !sanitized) {
    for (int64_t i = 0; i < a.count(); ++i) picked.insert(i);
  } else {
    const int64_t n = a.count(), cols = a.cols();
    for (int64_t i : {int64_t(0), n - 1, cols - 1, cols, int64_t(7), int64_t(8), int64_t(15), int64_t(16), int64_t(31),
                      int64_t(32), int64_t(63), int64_t(64), n - cols, n - 8, n - 16, n - 17})
      if (i >= 0 && i < n) picked.insert(i);
    Numbers numbers = numbers_for(a.shape(), 77);
    while (int64_t(picked.size()) < std::min<int64_t>(n, sanitized ? 0 : 64))
      picked.insert(int64_t(numbers.below(uint64_t(n))));
  }
  return {picked.begin(), picked.end()};
}

struct Checker {
  const TestDevice& device;
  const OpTest& test;
  Sizes sizes;
  DType type;
  Inputs inputs;
  Arrays weights;

  std::string where(const std::string& what) const {
    std::string text = fmt::format("{} on {}, {}, sizes", test.name, device.name, type);
    for (int64_t s : sizes) text += " " + std::to_string(s);
    return text + ": " + what;
  }
  double allowed(double scale) const { return tolerance(type, test.roundings, test.reduction(sizes), scale); }

  void expect_close(const Array& got, const Array& want, const std::string& what, double extra = 0) const {
    ASSERT_EQ(got.shape(), want.shape()) << where(what);
    const double limit = allowed(std::max(want.max_abs(), extra));
    for (int64_t i = 0; i < got.count(); ++i)
      // Written so that a NaN fails.
      if (!(std::abs(got[i] - want[i]) <= limit) && got[i] != want[i]) {
        ADD_FAILURE() << where(what) << " element " << i << " of " << got.shape().text() << " is " << got[i]
                      << ", expected " << want[i] << " within " << limit;
        return;
      }
  }

  void forward(const OpRun& run) const {
    const Arrays want = test.reference(values_of(inputs), sizes);
    ASSERT_EQ(run.outputs.size(), want.size()) << where("outputs");
    for (size_t o = 0; o < want.size(); ++o) expect_close(run.outputs[o], want[o], fmt::format("output {}", o));
  }

  void gradients(const OpRun& run) const {
    const Arrays at = values_of(inputs);
    int64_t total = 0;
    for (const Input& input : inputs)
      if (has_gradient(input)) total += input.values.count();
    const double factor = test.is_loss ? test_state().loss_scale : 1;
    for (size_t i = 0; i < inputs.size(); ++i) {
      if (!has_gradient(inputs[i])) continue;
      const Array& got = run.gradients[i];
      ASSERT_EQ(got.shape(), inputs[i].values.shape()) << where(fmt::format("gradient {} is missing", i));
      const double scale = got.max_abs();
      ASSERT_TRUE(std::isfinite(scale)) << where(fmt::format("gradient {} is not finite", i));
      const double limit = allowed(scale) + 1e-9;
      for (int64_t e : elements_to_check(got, total)) {
        const double want = factor * difference(test, at, sizes, weights, [&](Arrays& a, double h) { a[i][e] += h; });
        if (!(std::abs(got[e] - want) <= limit)) {
          ADD_FAILURE() << where(fmt::format("gradient {}", i)) << " element " << e << " of " << got.shape().text()
                        << " is " << got[e] << ", expected " << want << " within " << limit;
          break;
        }
      }
      if (total > 512) directions(run, at, i, factor, limit);
    }
  }

  // Random directions see every element at once: errors add up like a random walk.
  void directions(const OpRun& run, const Arrays& at, size_t i, double factor, double limit) const {
    Numbers numbers = numbers_for(inputs[i].values.shape(), 99 + i);
    for (int d = 0; d < (sanitized ? 1 : 8); ++d) {
      Array direction(inputs[i].values.shape());
      double got = 0, length = 0;
      for (int64_t e = 0; e < direction.count(); ++e) {
        direction[e] = numbers.normal();
        got += direction[e] * run.gradients[i][e];
        length += direction[e] * direction[e];
      }
      const double want = factor * difference(test, at, sizes, weights, [&](Arrays& a, double h) {
                            for (int64_t e = 0; e < direction.count(); ++e) a[i][e] += h * direction[e];
                          });
      EXPECT_NEAR(got, want, limit * std::sqrt(length)) << where(fmt::format("gradient {} along direction {}", i, d));
    }
  }

  Arrays presets_for(const OpRunOptions& options) const {
    Arrays presets;
    for (const Input& input : inputs) {
      Array preset(has_gradient(input) ? input.values.shape() : Shape{0});
      Numbers numbers = numbers_for(preset.shape(), 555);
      for (int64_t e = 0; e < preset.count(); ++e) preset[e] = rounded(numbers.normal(), gradient_type(input, options));
      presets.push_back(preset);
    }
    return presets;
  }

  void accumulation(const OpRun& plain, OpRunOptions options) const {
    const Arrays presets = presets_for(options);
    options.preset_gradients = &presets;
    const OpRun run = run_op(device, test, sizes, inputs, weights, options);
    for (size_t i = 0; i < inputs.size(); ++i) {
      if (!has_gradient(inputs[i])) continue;
      Array want = plain.gradients[i];
      for (int64_t e = 0; e < want.count(); ++e) want[e] += presets[i][e];
      expect_close(run.gradients[i], want, fmt::format("gradient {} added to what was there", i),
                   plain.gradients[i].max_abs());
    }
    guards(run);
  }

  // Sums are as exact as in float32, and rounded to the narrow type once.
  void narrow_gradients(const OpRun& plain, OpRunOptions options) const {
    options.narrow_gradients = true;
    const Arrays presets = presets_for(options);
    for (const bool adds : {false, true}) {
      options.preset_gradients = adds ? &presets : nullptr;
      const OpRun run = run_op(device, test, sizes, inputs, weights, options);
      for (size_t i = 0; i < inputs.size(); ++i) {
        if (inputs[i].kind != Input::parameter) continue;
        const double sums = tolerance(DType::f32, 1, test.reduction(sizes), plain.gradients[i].max_abs());
        for (int64_t e = 0; e < run.gradients[i].count(); ++e) {
          const double got = run.gradients[i][e], want = plain.gradients[i][e] + (adds ? presets[i][e] : 0);
          if (std::abs(got - want) <= roundoff(type) * std::abs(want) + 2 * sums) continue;
          ADD_FAILURE() << where(fmt::format("{} gradient {}{}", type, i, adds ? " added to what was there" : ""))
                        << " element " << e << " is " << got << ", expected " << want << ", rounded once";
          break;
        }
      }
      guards(run);
    }
  }

  void guards(const OpRun& run) const {
    for (const std::string& error : run.guard_errors) ADD_FAILURE() << where(error);
  }

  void same_bits(const OpRun& a, const OpRun& b, const std::string& what) const {
    EXPECT_EQ(a.output_bits, b.output_bits) << where(what);
    EXPECT_EQ(a.gradient_bits, b.gradient_bits) << where(what);
  }

  void all() {
    const OpRunOptions options{.type = type};
    const OpRun run = run_op(device, test, sizes, inputs, weights, options);
    guards(run);
    forward(run);
    gradients(run);
    accumulation(run, options);
    if (type == DType::bf16) narrow_gradients(run, options);
    same_bits(run, run_op(device, test, sizes, inputs, weights, options), "a second run");
    same_bits(run, run_op(device, test, sizes, inputs, weights, {.type = type, .policy = RecomputePolicy::selective}),
              "selective recomputation");
    if (!device.threads) return;
    const auto strict = [&](int threads) {
      return run_op(device, test, sizes, inputs, weights,
                    {.type = type, .cpu = {.threads = threads, .determinism = Determinism::strict}});
    };
    const OpRun one = strict(1);
    forward(one);
    for (int threads : {2, 4}) same_bits(one, strict(threads), fmt::format("{} threads in strict mode", threads));
  }
};

Input draw(Shape shape, Input::Kind kind, const std::function<double(Numbers&)>& next) {
  Input input{kind, Array(shape)};
  Numbers numbers = numbers_for(shape, mix64(++input_number));
  for (int64_t i = 0; i < input.values.count(); ++i) input.values[i] = next(numbers);
  return input;
}

}  // namespace

Input normal(Shape shape, double std) {
  return draw(shape, Input::activation, [std](Numbers& n) { return std * n.normal(); });
}
Input normal_parameter(Shape shape, double std) {
  return draw(shape, Input::parameter, [std](Numbers& n) { return std * n.normal(); });
}
Input uniform_parameter(Shape shape, double low, double high) {
  return draw(shape, Input::parameter, [=](Numbers& n) { return low + (high - low) * uniform(n.draw()[0]); });
}
Input constant(Array values) { return {Input::constant, std::move(values)}; }
Input integers(Shape shape, const std::vector<int64_t>& values) {
  Input input{Input::integer, Array(shape)};
  for (int64_t i = 0; i < shape.count(); ++i) input.values[i] = double(values[i]);
  return input;
}
Input random_integers(Shape shape, int64_t low, int64_t high) {
  return draw(shape, Input::integer, [=](Numbers& n) { return double(low + int64_t(n.below(uint64_t(high - low)))); });
}
Input absent() { return {Input::absent, Array(Shape{0})}; }

const StepState& test_state() {
  static const StepState state{.attempts = 3,
                               .updates = 2,
                               .philox = philox_key(42, 3, 1),
                               .loss_scale = 8,
                               .inverse_targets = 0.125f,
                               .learning_rate = 0.01f};
  return state;
}

double rounded(double value, DType type) {
  double result = value;
  dispatch<float, fp16, bf16>(type, "test", [&]<class T>() { result = float(T(float(value))); });
  return result;
}

double tolerance(DType type, int roundings, int64_t reduction, double scale) {
  // Each rounding to the type errs by at most its unit; sums are in float32, where errors of n terms grow like sqrt(n)
  // around a partial sum of the result's size. 4 is the margin between a typical and an unlucky element.
  const double sums = roundoff(DType::f32) * (4 + std::sqrt(double(reduction)));
  return 4 * (roundings * roundoff(type) + sums) * std::max(scale, 1e-30);
}

OpRun run_op(const TestDevice& device, const OpTest& test, const Sizes& sizes, const Inputs& inputs,
             const Arrays& weights, const OpRunOptions& options) {
  const auto backend = device.make(options.cpu);
  const HostMemory memory(device.host_memory ? test_memory : 0);
  Arena arena(device.host_memory ? memory.data() : backend->reserve(device_memory),
              device.host_memory ? memory.bytes() : device_memory,
              device.host_memory ? Arena::Guards::on : Arena::Guards::off);
  backend->bind(arena);
  OpRun run;
  {
    const Tensor state = backend->make({int64_t(sizeof(StepState))}, DType::u8);
    backend->copy_from_host(state, &test_state());
    Tape tape(*backend, nullptr, reinterpret_cast<const StepState*>(state.raw()));
    tape.set_policy(options.policy);
    Tensors leaves;
    for (size_t i = 0; i < inputs.size(); ++i) {
      const Input& input = inputs[i];
      Tensor t;
      if (input.kind != Input::absent) t = upload(*backend, input.values, type_of(input, options.type));
      if (has_gradient(input)) t = tape.leaf(t, gradient_type(input, options));
      if (options.preset_gradients && has_gradient(input))
        tape.seed(t, upload(*backend, (*options.preset_gradients)[i], gradient_type(input, options)));
      leaves.push_back(t);
    }
    Tensors outputs = test.op(tape, leaves, sizes);
    for (size_t o = 0; o < outputs.size(); ++o) {
      run.output_bits.push_back(bits_of(*backend, outputs[o]));
      run.outputs.push_back(to_array(run.output_bits.back(), outputs[o]));
      if (!test.is_loss && options.backward && weights[o].count())
        tape.seed(outputs[o], upload(*backend, weights[o], outputs[o].dtype()));
    }
    outputs.clear();
    if (options.backward) tape.backward();
    for (size_t i = 0; i < inputs.size(); ++i) {
      const Tensor gradient = options.backward && has_gradient(inputs[i]) ? tape.gradient(leaves[i]) : Tensor{};
      run.gradient_bits.push_back(gradient ? bits_of(*backend, gradient) : std::vector<std::byte>{});
      run.gradients.push_back(gradient ? to_array(run.gradient_bits.back(), gradient) : Array{});
    }
  }
  run.guard_errors = arena.guard_errors();
  return run;
}

void check_op(const OpTest& test) {
  for (const TestDevice& device : test_devices())
    for (const DType type : test.types)
      for (const Sizes& sizes : test.sizes) {
        if (device.differs && !device.differs(test, type)) continue;
        input_number = 0;
        Checker checker{device, test, sizes, type, test.inputs(sizes), {}};
        for (Input& input : checker.inputs)
          if (has_gradient(input) || input.kind == Input::constant)
            for (int64_t i = 0; i < input.values.count(); ++i)
              input.values[i] = rounded(input.values[i], type_of(input, type));

        const Arrays outputs = test.reference(values_of(checker.inputs), sizes);
        for (size_t o = 0; o < outputs.size(); ++o) {
          Array weight(test.is_loss && o > 0 ? Shape{0} : outputs[o].shape(), 1.0);
          Numbers numbers = numbers_for(weight.shape(), 1234 + o);
          if (!test.is_loss)
            for (int64_t i = 0; i < weight.count(); ++i) weight[i] = rounded(numbers.normal(), type);
          checker.weights.push_back(weight);
        }
        checker.all();
        if (testing::Test::HasFailure()) return;  // one clear failure rather than a hundred
      }
}

}  // namespace mixtape
