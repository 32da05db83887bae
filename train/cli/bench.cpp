// mixtape bench: how fast, and how near to what the machine can do.
#include "train/cli/bench.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "core/cpu/parallel.h"
#include "train/cli/commands.h"
#include "train/report/machine.h"

namespace mixtape {

ResolvedConfig load_bench_arguments(std::vector<std::string> words, const std::string& device) {
  if (!device.empty()) words.push_back("device=" + device);
  return load_arguments(words);
}

std::string limits_text(const Limits& l) {
  if (!l.device.empty())
    return fmt::format("{}: {:.1f} TFLOP/s of {} products, reading {:.0f} GB/s, copying {:.0f} GB/s\n", l.device,
                       l.fma / 1e12, l.type, l.read / 1e9, l.copy / 1e9);
  return fmt::format(
      "{}, {} threads: {:.0f} GFLOP/s of fp32 multiply-adds ({:.0f} on one thread), reading {:.1f} GB/s, copying "
      "{:.1f} GB/s\n",
      processor_name(), thread_count(), l.fma / 1e9, l.fma_one / 1e9, l.read / 1e9, l.copy / 1e9);
}

nlohmann::json limits_json(const Limits& l) {
  nlohmann::json j{{"fma", l.fma}, {"fma_one_thread", l.fma_one}, {"read", l.read}, {"copy", l.copy}};
  if (!l.device.empty()) j["device"] = l.device;
  return j;
}

std::string share_text(const Work& work, double seconds, const Limits& limits) {
  return work.known() ? fmt::format("{:.0f} %", 100 * least_seconds(work, limits) / seconds) : "";
}

std::string rate_text(const Work& work, double seconds, const Limits& limits) {
  if (!work.known()) return "";
  if (!bound_by_arithmetic(work, limits)) return fmt::format("{:.1f} GB/s", work.bytes() / seconds / 1e9);
  const double rate = work.flops / seconds;
  return rate < 1e12 ? fmt::format("{:.1f} GFLOP/s", rate / 1e9) : fmt::format("{:.1f} TFLOP/s", rate / 1e12);
}

void add_bench_command(Command& app) {
  Command command = app.subcommand(
      "bench",
      "speed of training steps, operations, exchanges and tokenizers, beside the machine's limits; memory of models");
  command.require_subcommand();
  add_bench_train(command);
  add_bench_ops(command);
  add_bench_memory(command);
  add_bench_comm(command);
  add_bench_tokenizer(command);
}

}  // namespace mixtape
