// mixtape bench ops [CONFIG...] [key=value...]
#include <algorithm>
#include <nlohmann/json.hpp>

#include "train/bench/operations.h"
#include "train/cli/bench.h"
#include "train/cli/commands.h"
#include "train/report/console.h"

namespace mixtape {
namespace {

struct BenchOpsArguments {
  OperationsBenchOptions options;
  std::string device;
  bool json = false;
};

std::string_view pass_of(const OperationTiming& line) { return line.backward ? "backward" : "forward"; }

std::string samples_text(const Timing& t) {
  std::string text = std::to_string(t.counted);
  if (t.dropped > 0) text += fmt::format(", {} dropped", t.dropped);
  return t.disturbed ? text + ", DISTURBED" : text;
}

void print_bench_ops(const OperationsBench& b) {
  size_t shape = 5;
  for (const OperationTiming& line : b.lines) shape = std::max(shape, line.shape.size());
  fmt::print("{}Elements {}; what memory must deliver is not in caches\n\n", limits_text(b.limits), b.type);
  fmt::print("{:<18} {:<{}} {:<9} {:>10} {:>15} {:>9}  {}\n", "operation", "shape", shape, "pass", "ms", "rate",
             "of limit", "samples");
  for (const OperationTiming& line : b.lines)
    fmt::print("{:<18} {:<{}} {:<9} {:>10.3f} {:>15} {:>9}  {}\n", line.operation, line.shape, shape, pass_of(line),
               1e3 * line.timing.median, rate_text(line.work, line.timing.median, b.limits),
               share_text(line.work, line.timing.median, b.limits), samples_text(line.timing));
  const auto disturbed =
      std::count_if(b.lines.begin(), b.lines.end(), [](const OperationTiming& line) { return line.timing.disturbed; });
  if (disturbed > 0)
    fmt::print("\n{} of {} lines are from a DISTURBED machine: most of their samples were dropped; they say little\n",
               disturbed, b.lines.size());
}

nlohmann::json json_of_bench_ops(const OperationsBench& b) {
  nlohmann::json lines = nlohmann::json::array();
  for (const OperationTiming& line : b.lines)
    lines.push_back({{"operation", line.operation},
                     {"shape", line.shape},
                     {"pass", pass_of(line)},
                     {"seconds", line.timing.median},
                     {"least_seconds", line.timing.least},
                     {"most_seconds", line.timing.most},
                     {"samples", line.timing.counted},
                     {"dropped", line.timing.dropped},
                     {"disturbed", line.timing.disturbed},
                     {"flop", line.work.flops},
                     {"bytes", line.work.bytes()},
                     {"share_of_limit", least_seconds(line.work, b.limits) / line.timing.median}});
  return {{"dtype", name_of(b.type)}, {"limits", limits_json(b.limits)}, {"operations", lines}};
}

void run_bench_ops(const std::vector<std::string>& words, const BenchOpsArguments& a) {
  OperationsBenchOptions options = a.options;
  options.progress = [](size_t done, size_t total, const std::string& operation) {
    console().bar(fmt::format("{} of {}  {}", done + 1, total, operation));
  };
  const OperationsBench bench = bench_operations(load_bench_arguments(words, a.device), options);
  console().bar("");
  if (a.json)
    fmt::print("{}\n", json_of_bench_ops(bench).dump());
  else
    print_bench_ops(bench);
}

}  // namespace

void add_bench_ops(Command& bench) {
  Command command = bench.subcommand(
      "ops",
      "time every operation alone, at the shapes of a configuration; without one, of GPT-2 124M on 4 x 256 tokens");
  const auto arguments = add_config_arguments(command);
  const auto a = std::make_shared<BenchOpsArguments>();
  command.option("--only", a->options.only, "these operations").type_name("NAME...");
  command.option("--device", a->device, "as the key `device`: cpu, cuda, cuda:N");
  command.option("--samples", a->options.samples, "samples of each operation that must count").range(1, 1000);
  command.flag("--json", a->json, "one line of JSON in place of text");
  command.action([arguments, a] { run_bench_ops(arguments(), *a); });
}

}  // namespace mixtape
