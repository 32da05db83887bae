// mixtape bench train CONFIG... [key=value...]
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>

#include "train/bench/training.h"
#include "train/cli/bench.h"
#include "train/cli/commands.h"
#include "train/report/run_directory.h"
#include "train/report/units.h"

namespace mixtape {
namespace {

struct BenchTrainArguments {
  TrainingBenchOptions options;
  std::string trace, device;
  bool json = false, turns = false;
};

void print_profile(const TrainingBench& b) {
  fmt::print("\nWhere {:.1f} ms of a step go ({:+.1f} % for looking)\n", 1e3 * b.profiled_step_seconds,
             100 * (b.profiled_step_seconds / b.step.median - 1));
  fmt::print("  {:<18} {:<9} {:>6} {:>10} {:>7} {:>9} {:>9} {:>15} {:>9}\n", "operation", "pass", "calls", "ms",
             "share", "GFLOP", "MB", "rate", "of limit");
  for (const ProfileLine& line : b.profile) {
    const double bytes = line.work.bytes();
    fmt::print("  {:<18} {:<9} {:>6} {:>10.2f} {:>6.1f}% {:>9} {:>9} {:>15} {:>9}\n", line.name, line.pass, line.calls,
               1e3 * line.seconds, 100 * line.seconds / b.profiled_step_seconds,
               line.work.flops > 0 ? fmt::format("{:.2f}", line.work.flops / 1e9) : "",
               bytes > 0 ? fmt::format("{:.0f}", bytes / 1e6) : "", rate_text(line.work, line.seconds, b.limits),
               share_text(line.work, line.seconds, b.limits));
  }
}

void print_bench_train(const TrainingBench& b) {
  fmt::print("{}", limits_text(b.limits));
  fmt::print("Parameters        {}\n", with_thousands(b.parameters));
  fmt::print("Step              {:.4f} s, median of {} ({:.4f} to {:.4f})\n", b.step.median, b.step.counted,
             b.step.least, b.step.most);
  if (b.step.dropped > 0)
    fmt::print("                  {} steps dropped, whose probes were more than 15 % below the best\n", b.step.dropped);
  if (b.step.disturbed)
    fmt::print("                  THE MACHINE IS DISTURBED: most steps were dropped; these figures say little\n");
  fmt::print("Tokens            {} a step, {}/s\n", with_thousands(b.tokens), human_rate(b.tokens_per_second()));
  fmt::print("Arithmetic        {:.1f} GFLOP a step, {:.1f} GFLOP/s, {:.0f} % of {}\n", b.flops / 1e9,
             b.flops / b.step.median / 1e9, 100 * b.share_of_fma(),
             b.limits.device.empty() ? "multiply-adds" : "what large products reach");
  if (b.mfu() > 0)
    fmt::print("MFU               {:.1f} % of {:.1f} TFLOP/s, by 6N + 12LHQT\n", 100 * b.mfu(), b.peak_flops / 1e12);
  else if (!b.limits.device.empty())
    fmt::print("MFU               unknown: {}\n", b.peak_flops > 0
                                                      ? "no count of operations is agreed on for this model"
                                                      : "the peak of this device is not in the table");
  fmt::print("Memory            arena {}, process at its peak {}\n", human_bytes(double(b.arena_bytes)),
             human_bytes(double(b.peak_resident_bytes)));
  if (!b.profile.empty()) print_profile(b);
}

nlohmann::json json_of_setup(const TrainingBench& b) {
  return {{"parameters", b.parameters},
          {"tokens_per_step", b.tokens},
          {"flop_per_step", b.flops},
          {"arena_bytes", b.arena_bytes},
          {"resident_before_bytes", b.resident_before_bytes}};
}

nlohmann::json json_of_bench_train(const TrainingBench& b) {
  nlohmann::json j = json_of_setup(b);
  j.update({{"seconds_per_step", b.step.median},
            {"least_seconds", b.step.least},
            {"most_seconds", b.step.most},
            {"steps", b.step.counted},
            {"dropped", b.step.dropped},
            {"disturbed", b.step.disturbed},
            {"tokens_per_second", b.tokens_per_second()},
            {"share_of_fma", b.share_of_fma()},
            {"published_flop_per_step", b.published_flops},
            {"peak_flops", b.peak_flops},
            {"mfu", b.mfu()},
            {"peak_resident_bytes", b.peak_resident_bytes},
            {"limits", limits_json(b.limits)}});
  for (const ProfileLine& line : b.profile)
    j["profile"].push_back({{"operation", line.name},
                            {"pass", line.pass},
                            {"calls", line.calls},
                            {"seconds", line.seconds},
                            {"flop", line.work.flops},
                            {"bytes", line.work.bytes()}});
  return j;
}

void print_line(const nlohmann::json& j) {
  fmt::print("{}\n", j.dump());
  std::fflush(stdout);
}

void run_turns(const ResolvedConfig& config) {
  take_turns(config, std::cin,
             {.ready = [](const TrainingBench& b) { print_line(json_of_setup(b)); },
              .done =
                  [](double seconds, int64_t peak) {
                    print_line({{"seconds_per_step", seconds}, {"peak_resident_bytes", peak}});
                  }});
}

void run_bench_train(const std::vector<std::string>& words, const BenchTrainArguments& a) {
  const ResolvedConfig config = load_bench_arguments(words, a.device);
  if (a.turns) return run_turns(config);
  TrainingBenchOptions options = a.options;
  options.profile = options.profile || !a.trace.empty();
  const TrainingBench bench = bench_training(config, options);
  if (a.json)
    print_line(json_of_bench_train(bench));
  else
    print_bench_train(bench);
  if (a.trace.empty()) return;
  write_file_atomically(a.trace, bench.trace);
  if (!a.json) fmt::print("\nTrace of one step in {}; open it in chrome://tracing or ui.perfetto.dev\n", a.trace);
}

}  // namespace

void add_bench_train(Command& bench) {
  Command command = bench.subcommand("train", "time the steps of a configuration on random tokens");
  const auto arguments = add_config_arguments(command);
  const auto a = std::make_shared<BenchTrainArguments>();
  command.option("--steps", a->options.steps, "steps that must count").range(1, 100000);
  command.option("--device", a->device, "as the key `device`: cpu, cuda, cuda:N");
  command.flag("--profile", a->options.profile, "a table of operations");
  command.option("--trace", a->trace, "write a Chrome trace of one step").type_name("FILE.json");
  command.flag("--json", a->json, "one line of JSON in place of text");
  command.flag("--turns", a->turns,
               "to take turns with another program: for each line of standard input, a number of steps, runs them and "
               "prints the time of one as a line of JSON; the first line says that it is ready");
  command.action([arguments, a] { run_bench_train(arguments(), *a); });
}

}  // namespace mixtape
