#include "train/bench/operations.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <set>

#include "core/cpu/probe.h"
#include "core/model/transformer.h"
#include "core/ops/cast.h"
#include "train/bench/operation_cases.h"
#include "train/bench/profile.h"
#include "train/bench/synthetic.h"
#include "train/devices.h"
#include "train/tuning_cache.h"

namespace mixtape {
namespace {

constexpr double seconds_a_sample = 0.01;
constexpr double most_calls_a_sample = 20;

// One case on a device, with an arena of its own; with capacity 0 on one without memory, which counts.
class CaseRun {
 public:
  CaseRun(const OperationCase& c, const DeviceOptions& device, int64_t capacity)
      : case_(c),
        backend_(make_backend(device)),
        memory_(capacity > 0 ? backend_->reserve(capacity) : nullptr),
        arena_(capacity > 0 ? std::make_unique<Arena>(memory_, capacity) : std::make_unique<Arena>()) {
    backend_->bind(*arena_);
    arena_->set_context("bench");
    backend_->set_choices(load_tuning(*backend_));
    const StepState start{.philox = philox_key(1), .inverse_targets = 1e-3f, .learning_rate = 1e-4f};
    state_ = backend_->make({int64_t(sizeof(StepState))}, DType::u8, Category::batch);
    backend_->copy_from_host(state_, &start);
    auto* state = reinterpret_cast<StepState*>(state_.raw());
    run_ = case_.prepare({*backend_, state});
    tape_ = std::make_unique<Tape>(*backend_, nullptr, state);
    tape_->set_observer(&profile_);
  }

  void once() {
    drop_caches();
    if (!case_.on_tape) profile_.begin(case_.operation, false);
    Tensors outputs = run_(*tape_);
    if (!case_.on_tape) profile_.end(case_.operation, false);
    if (case_.backward.known()) {
      seed(outputs);
      drop_caches();
      tape_->backward();
    }
    outputs.clear();
    tape_->clear();
  }

  Profile& profile() { return profile_; }
  int64_t peak() const { return arena_->peak(); }
  void keep_choices() { save_tuning(*backend_); }

 private:
  void drop_caches() {
    if (memory_) drop_from_caches(memory_, arena_->peak());
  }

  // Some gradient for each output, in memory that nobody else holds: operations may write over it, as in a model.
  void seed(Tensors& outputs) {
    for (Tensor& y : outputs) {
      const Tensor dy = backend_->make(y.shape(), y.dtype());
      backend_->cast().convert({.y = {dy, Write::overwrite}, .x = y});
      tape_->seed(y, dy);
      y = {};
    }
  }

  const OperationCase& case_;
  std::unique_ptr<Backend> backend_;
  std::byte* memory_;
  std::unique_ptr<Arena> arena_;
  Tensor state_;
  Profile profile_{*backend_};
  std::function<Tensors(Tape&)> run_;
  std::unique_ptr<Tape> tape_;
};

// What was seen of one direction of a case; judged at the end, when the best probe of all is known.
struct Seen {
  OperationTiming line;
  std::vector<TimeSample> samples;
};

int64_t capacity_of(const OperationCase& c, const DeviceOptions& device) {
  CaseRun plan(c, device, 0);
  plan.once();
  plan.once();
  return plan.peak();
}

void measure(const OperationCase& c, const DeviceOptions& device, int wanted, SteadyTimer& timer,
             std::vector<Seen>& seen) {
  CaseRun run(c, device, capacity_of(c, device));
  run.once();  // choices of libraries, pages
  run.keep_choices();
  run.profile().clear();
  run.once();
  const double once = std::max(run.profile().total_seconds(), 1e-7);
  const int calls = int(std::clamp(std::ceil(seconds_a_sample / once), 1.0, most_calls_a_sample));

  std::vector<std::map<Profile::Key, Profile::Row>> tables;
  const std::vector<TimeSample> samples = timer.samples(
      wanted,
      [&] {
        run.profile().clear();
        for (int i = 0; i < calls; ++i) run.once();
        tables.push_back(run.profile().rows());
      },
      0.02);
  for (const bool backward : {false, true}) {
    const Work& work = backward ? c.backward : c.forward;
    if (!work.known()) continue;
    std::vector<TimeSample> parts = samples;
    for (size_t i = 0; i < parts.size(); ++i) parts[i].seconds = tables[i].at({c.operation, backward}).seconds / calls;
    seen.push_back({{c.operation, c.shape, backward, work, {}}, std::move(parts)});
  }
}

std::vector<OperationCase> chosen_cases(const Config& config, const std::vector<std::string>& only) {
  const Transformer model(config.model, config.data.seq_length);
  std::vector<OperationCase> cases = operation_cases({.model = config.model,
                                                      .sequences = config.train.micro_batch_size,
                                                      .length = config.data.seq_length,
                                                      .type = compute_types(config.precision).compute,
                                                      .parameters = model.layout().parameter_count()});
  std::set<std::string> names;
  for (const OperationCase& c : cases) names.insert(c.operation);
  for (const std::string& name : only)
    if (!names.contains(name))
      throw ConfigError("--only: '{}' is no operation; expected {}", name, fmt::join(names, ", "));
  if (!only.empty())
    std::erase_if(
        cases, [&](const OperationCase& c) { return std::find(only.begin(), only.end(), c.operation) == only.end(); });
  return cases;
}

}  // namespace

OperationsBench bench_operations(ResolvedConfig resolved, const OperationsBenchOptions& options) {
  leave_data_out(resolved.config);
  check(resolved.config, resolved.origins, build_features());
  const Config& config = resolved.config;
  const std::vector<OperationCase> cases = chosen_cases(config, options.only);

  OperationsBench result{.type = compute_types(config.precision).compute};
  make_backend(device_options(config));  // sets the number of threads, which the limits are for
  result.limits = measure_limits();
  SteadyTimer timer;
  std::vector<Seen> seen;
  for (size_t i = 0; i < cases.size(); ++i) {
    if (options.progress) options.progress(i, cases.size(), cases[i].operation);
    measure(cases[i], device_options(config), options.samples, timer, seen);
  }
  result.limits = best_of(result.limits, measure_limits());
  result.limits.fma = std::max(result.limits.fma, timer.best_probe());
  for (Seen& s : seen) {
    s.line.timing = summarise(s.samples, timer.best_probe());
    result.lines.push_back(std::move(s.line));
  }
  return result;
}

}  // namespace mixtape
