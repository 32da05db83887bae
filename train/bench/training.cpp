#include "train/bench/training.h"

#include <algorithm>
#include <charconv>
#include <fstream>

#include "core/base/clock.h"
#include "core/base/error.h"
#include "train/bench/device_limits.h"
#include "train/bench/model_work.h"
#include "train/bench/peaks.h"
#include "train/bench/synthetic.h"
#include "train/devices.h"
#include "train/step.h"
#include "train/tuning_cache.h"

namespace mixtape {
namespace {

int64_t status_bytes(const std::string& key) {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;)
    if (word == key + ":") {
      int64_t kilobytes = 0;
      status >> kilobytes;
      return kilobytes * 1024;
    }
  return 0;
}

const ResolvedConfig& checked(ResolvedConfig& resolved) {
  leave_data_out(resolved.config);
  check(resolved.config, resolved.origins, build_features());
  expect_nothing_shared(resolved.config, "bench train",
                        "set parallel.zero_stage=0 parallel.tensor_parallel_size=1, or time a run under mpirun");
  return resolved;
}

int parse_count(const std::string& line) {
  int count = 0;
  const auto [end, error] = std::from_chars(line.data(), line.data() + line.size(), count);
  if (error != std::errc() || end != line.data() + line.size() || count < 1)
    throw ConfigError("bench train --turns: '{}', expected a number of steps in each line of the input", line);
  return count;
}

class Bench {
 public:
  // Fills in what is known of `result` before a step is timed.
  Bench(const ResolvedConfig& resolved, TrainingBench& result)
      : before_(resident_bytes()),
        config_(resolved.config),
        options_(synthetic_options(config_)),
        plan_(plan_training(options_, config_)),
        engine_(options_, plan_.memory()),
        batch_(synthetic_batch(config_)) {
    engine_.backend().set_choices(load_tuning(engine_.backend()));
    engine_.parameters().initialise(uint64_t(config_.seed));
    config_.schedule.warmup_steps = 0;  // its steps may take a pass more
    step_ = std::make_unique<TrainingStep>(engine_, config_);
    result.resident_before_bytes = before_;
    result.parameters = count();
    result.tokens = batch_.n_tokens;
    result.flops = engine_.model().flops_per_token(options_.lengths()) * double(result.tokens);
    const ModelSpec& spec = options_.model;
    result.published_flops =
        published_flops_per_token(spec, engine_.model().layout().parameter_count(), options_.row_length) *
        double(result.tokens);
    if (const DevicePeak* peak = peak_of(engine_.backend().name()))
      result.peak_flops = peak_flops(*peak, config_.precision.mode);
    result.arena_bytes = plan_.peak;
  }

  Engine& engine() { return engine_; }
  bool on_cpu() { return is_cpu(engine_.backend()); }
  void run() {
    step_->run(batch_, config_.optimizer.lr);
    engine_.backend().synchronize();
  }

  // Pages, timed choices, threads.
  void warm_up() {
    run();
    save_tuning(engine_.backend());
    run();
  }

  // The norm and the update are rows of backward.
  bool fused() const { return options_.gradient_memory.transient; }
  const Optimizer& optimizer() const { return step_->optimizer(); }
  void norm() {
    optimizer().measure_gradients(engine_.device_state());
    engine_.backend().synchronize();
  }
  void update() {
    optimizer().update(engine_.device_state());
    engine_.backend().synchronize();
  }

  Work norm_work() { return gradient_norm_work(count(), gradient_bytes()); }
  Work update_work() {
    const ParameterStorage& storage = parameters().storage();
    if (storage.moments.second == SecondMoments::factored)
      return adafactor_work(count(), storage.master == MasterWeights::none ? 0 : size_of(storage.weights),
                            storage.moments.first);
    const Parameters& p = parameters();
    const auto bytes = [](const FlatState& s) { return s ? double(s.bytes()) : 0.0; };
    const double moments = bytes(p.m.values) + bytes(p.m.scales) + bytes(p.v.values) + bytes(p.v.scales);
    Work work = ::mixtape::update_work(count(), {.weight = storage.weights,
                                                 .master = p.master ? double(size_of(p.master.dtype())) : 0.0,
                                                 .gradient = double(gradient_bytes()),
                                                 .moments = moments / double(count())});
    if (config_.optimizer.name == OptimizerKind::muon)
      for (const UpdateTensor& t : p.update_tensors(0))
        if (p.layout()[int(t.parameter)].is_hidden_matrix())
          work += muon_work(t.rows, t.cols, config_.optimizer.muon.iterations);
    return work;
  }
  Work tape_work(const Profile::Key& key) {
    const MicroBatchShape shape{options_.rows, options_.lengths(), size_of(options_.types.compute)};
    return double(batch_.micro_batches.size()) * model_work(options_.model, shape, key.first, key.second);
  }

 private:
  Parameters& parameters() { return engine_.parameters(); }
  int64_t count() { return parameters().layout().learning_count(); }
  int64_t gradient_bytes() { return size_of(parameters().storage().gradient_memory.dtype); }

  int64_t before_;
  Config config_;
  EngineOptions options_;
  MemoryPlan plan_;
  Engine engine_;
  GlobalBatch batch_;
  std::unique_ptr<TrainingStep> step_;
};

// Steps with every operation timed. The gradients' norm and the update lie outside of the tape and are timed alone;
// what is left over is the loading of batches and the tape's own work.
void profile_steps(Bench& bench, SteadyTimer& timer, int steps, TrainingBench& result) {
  Profile profile(bench.engine().backend());
  bench.engine().tape().set_observer(&profile);
  // Of each operation the median over steps would need every step's table; the step of median time stands for all.
  std::vector<std::pair<double, std::map<Profile::Key, Profile::Row>>> tables;
  timer.time(steps, [&] {
    profile.clear();
    const double start = now_seconds();
    bench.run();
    tables.push_back({now_seconds() - start, profile.rows()});
  });
  bench.engine().tape().set_observer(nullptr);
  result.trace = profile.trace_json();

  std::sort(tables.begin(), tables.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  const auto& [seconds, rows] = tables[tables.size() / 2];
  result.profiled_step_seconds = seconds;
  double left = seconds;
  const auto add = [&](std::string name, std::string pass, double calls, double time, Work work) {
    left -= time;
    result.profile.push_back({std::move(name), std::move(pass), calls, time, work});
  };
  for (const auto& [key, row] : rows)
    add(key.first, key.second ? "backward" : "forward", double(row.calls), row.seconds, bench.tape_work(key));
  if (!bench.fused()) {
    add("gradient_norm", "step", 1, timer.time_short(3, [&] { bench.norm(); }).median, bench.norm_work());
    add(std::string(bench.optimizer().name()), "step", 1, timer.time_short(3, [&] { bench.update(); }).median,
        bench.update_work());
  }
  add("everything else", "step", 1, std::max(left, 0.0), {});
  std::sort(result.profile.begin(), result.profile.end(),
            [](const ProfileLine& a, const ProfileLine& b) { return a.seconds > b.seconds; });
}

}  // namespace

int64_t peak_resident_bytes() { return status_bytes("VmHWM"); }
int64_t resident_bytes() { return status_bytes("VmRSS"); }

TrainingBench bench_training(ResolvedConfig resolved, const TrainingBenchOptions& options) {
  TrainingBench result;
  Bench bench(checked(resolved), result);
  bench.warm_up();
  SteadyTimer timer(bench.on_cpu());
  result.step = timer.time(options.steps, [&] { bench.run(); });
  // Before the buffers with which bandwidth is measured.
  result.peak_resident_bytes = peak_resident_bytes();
  if (options.profile) profile_steps(bench, timer, std::min(options.steps, 3), result);
  if (bench.on_cpu()) {
    result.limits = measure_limits();
    result.limits.fma = std::max(result.limits.fma, timer.best_probe());
  } else {
    result.limits = measure_device_limits(*make_backend(device_options(resolved.config)),
                                          compute_types(resolved.config.precision).compute);
  }
  return result;
}

void take_turns(ResolvedConfig resolved, std::istream& in, const TrainingTurns& turns) {
  TrainingBench result;
  Bench bench(checked(resolved), result);
  bench.warm_up();
  turns.ready(result);
  for (std::string line; std::getline(in, line);) {
    const int steps = parse_count(line);
    const double start = now_seconds();
    for (int i = 0; i < steps; ++i) bench.run();
    turns.done((now_seconds() - start) / steps, peak_resident_bytes());
  }
}

}  // namespace mixtape
