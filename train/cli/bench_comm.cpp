// mixtape bench comm: what ranks exchange, beside MPI's own calls and the memory of the machine.
#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "train/bench/communication.h"
#include "train/bench/fit.h"
#include "train/cli/arguments.h"
#include "train/cli/bench.h"
#include "train/cli/commands.h"
#include "train/parallel/launch.h"
#include "train/parallel/world.h"
#include "train/report/units.h"

namespace mixtape {
namespace {

struct BenchCommArguments {
  std::optional<int> devices;
  std::vector<std::string> sizes;
  int samples = 9;
  bool json = false;
};

void print_bench_comm(const CommunicationBench& b) {
  fmt::print("{} processes; each copies memory at {:.1f} GB/s while all do (bytes read and written)\n", b.ranks,
             b.copy / 1e9);
  fmt::print("Medians of {}, of the slowest process; sent: what each process must send by the second\n\n", b.samples);
  fmt::print("{:<15} {:>10} {:>11} {:>11} {:>9} {:>11} {:>12}\n", "", "size", "ms", "MPI's, ms", "MPI / it",
             "sent, GB/s", "of copying");
  for (const CommunicationTiming& t : b.lines)
    fmt::print("{:<15} {:>10} {:>11.3f} {:>11.3f} {:>9.2f} {:>11.2f} {:>10.0f} %\n", t.collective,
               human_bytes(double(t.bytes)), 1e3 * t.seconds, 1e3 * t.raw_seconds, t.raw_seconds / t.seconds,
               t.moved / t.seconds / 1e9, 100 * t.moved / t.seconds / (b.copy / 2));
}

nlohmann::json json_of_bench_comm(const CommunicationBench& b) {
  nlohmann::json lines = nlohmann::json::array();
  for (const CommunicationTiming& t : b.lines)
    lines.push_back({{"collective", t.collective},
                     {"bytes", t.bytes},
                     {"moved_bytes", t.moved},
                     {"seconds", t.seconds},
                     {"raw_seconds", t.raw_seconds},
                     {"ratio", t.raw_seconds / t.seconds}});
  return {{"ranks", b.ranks}, {"samples", b.samples}, {"copy", b.copy}, {"collectives", lines}};
}

void run_bench_comm(const BenchCommArguments& a) {
  std::vector<int64_t> sizes;
  for (const std::string& size : a.sizes) sizes.push_back(bytes_of(size, "--size"));
  if (sizes.empty()) sizes = {64 << 10, 1 << 20, 16 << 20, 128 << 20};
  if (a.devices && !is_launched()) {
    std::vector<std::string> words = command_line();
    words.erase(words.begin());
    exit_code = launch_ranks(*a.devices, words);
    return;
  }
  const auto ranks = join_world();
  if (!ranks)
    throw ConfigError("bench comm: one process has nobody to talk to; say --devices 2, or start it by mpirun -np 2");
  const CommunicationBench bench = bench_communication(*ranks, sizes, a.samples);
  if (ranks->rank() > 0) return;
  if (a.json)
    fmt::print("{}\n", json_of_bench_comm(bench).dump());
  else
    print_bench_comm(bench);
}

}  // namespace

void add_bench_comm(Command& bench) {
  Command command = bench.subcommand("comm", "time all-reduce, reduce-scatter and all-gather beside MPI's own calls");
  const auto a = std::make_shared<BenchCommArguments>();
  command.option("--devices", a->devices, "processes on this machine, started by mpirun").range(2, 1024);
  command.option("--size", a->sizes, "of what is summed or gathered; default 64KiB 1MiB 16MiB 128MiB")
      .type_name("SIZE...");
  command.option("--samples", a->samples, "of each").range(1, 1000);
  command.flag("--json", a->json, "one line of JSON in place of text");
  command.action([a] { run_bench_comm(*a); });
}

}  // namespace mixtape
