// mixtape bench: how fast, and how near to what the machine can do.
#include "train/cli/bench.h"

#include "train/cli/commands.h"
#include "train/report/machine.h"

namespace mixtape {

std::string limits_text(const Limits& l) {
  return fmt::format(
      "{}, {} threads: {:.0f} GFLOP/s of fp32 multiply-adds ({:.0f} on one thread), reading {:.1f} GB/s, copying "
      "{:.1f} "
      "GB/s\n",
      processor_name(), available_cores(), l.fma / 1e9, l.fma_one / 1e9, l.read / 1e9, l.copy / 1e9);
}

std::string share_text(const Work& work, double seconds, const Limits& limits) {
  return work.known() ? fmt::format("{:.0f} %", 100 * least_seconds(work, limits) / seconds) : "";
}

std::string rate_text(const Work& work, double seconds) {
  if (work.flops > 0) return fmt::format("{:.1f} GFLOP/s", work.flops / seconds / 1e9);
  if (work.known()) return fmt::format("{:.1f} GB/s", (work.read + work.written) / seconds / 1e9);
  return "";
}

void add_bench_command(Command& app) {
  Command command = app.subcommand("bench", "speed of training steps, beside the machine's limits");
  command.require_subcommand();
  add_bench_train(command);
}

}  // namespace mixtape
