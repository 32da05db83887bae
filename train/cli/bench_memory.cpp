// mixtape bench memory [CONFIG...] [key=value...]
#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "train/bench/memory.h"
#include "train/cli/bench.h"
#include "train/cli/commands.h"
#include "train/report/bar_chart.h"
#include "train/report/published_memory.h"
#include "train/report/run_directory.h"
#include "train/report/units.h"

namespace mixtape {
namespace {

struct BenchMemoryArguments {
  std::vector<std::string> presets, modes;
  std::string svg;
  int world = 1;
  bool run = false, json = false;
};

struct Line {
  std::string model, mode;
  MemoryBench bench;
  int64_t bytes(Category c) const {
    return c == Category::gradients ? bench.gradient_bytes : bench.predicted.at_peak[size_t(c)];
  }
  double of(Category c) const { return double(bytes(c)); }
  double a_parameter(double bytes) const { return bytes / double(bench.parameters); }
};

// "--mode fp32" is one of the named modes; "--mode precision.mode=bf16,memory.recompute=full" one of its own.
MemoryMode mode_of(const std::string& text) {
  std::vector<std::string> names;
  for (const MemoryMode& mode : memory_modes()) {
    if (mode.name == text) return mode;
    names.push_back("'" + mode.name + "'");
  }
  MemoryMode mode{text, {}};
  for (size_t at = 0; at <= text.size();) {
    const size_t end = std::min(text.find(',', at), text.size());
    mode.settings.push_back(text.substr(at, end - at));
    if (mode.settings.back().find('=') == std::string::npos)
      throw ConfigError("bench memory --mode: '{}', expected {}, or settings such as precision.mode=bf16", text,
                        fmt::join(names, ", "));
    at = end + 1;
  }
  return mode;
}

std::vector<Line> bench_all(const std::vector<std::string>& words, const BenchMemoryArguments& a) {
  std::vector<MemoryMode> modes;
  for (const std::string& text : a.modes) modes.push_back(mode_of(text));
  if (a.modes.empty()) modes = a.world == 1 ? memory_modes() : sharing_modes();
  // One row of 512 tokens a process, unless the arguments say otherwise.
  std::vector<std::string> first = {"data.seq_length=512", "train.micro_batch_size=1",
                                    fmt::format("train.global_batch_size={}", a.world)};
  first.insert(first.end(), words.begin(), words.end());
  std::vector<std::string> presets = a.presets;
  if (presets.empty()) presets.push_back(words.empty() ? "gpt2" : "");
  std::vector<Line> lines;
  for (const std::string& preset : presets)
    for (const MemoryMode& mode : modes) {
      std::vector<std::string> all = first;
      if (!preset.empty()) all.push_back("model.preset=" + preset);
      all.insert(all.end(), mode.settings.begin(), mode.settings.end());
      const ResolvedConfig config = load_arguments(all);
      lines.push_back(
          {preset.empty() ? config.config.run.name : preset, mode.name, bench_memory(config, a.run, a.world)});
    }
  return lines;
}

std::string measured_text(const MemoryBench& b) {
  if (!b.measured) return "";
  return fmt::format("{} ({:+.1f} %)", human_bytes(double(*b.measured)),
                     100 * (double(*b.measured) / double(b.predicted.peak) - 1));
}

void print_lines(const std::vector<Line>& lines, int world, int64_t libraries) {
  fmt::print("Bytes a parameter by the dry run of one step{}{}\n",
             world == 1 ? "" : fmt::format(", in each of {} processes", world),
             lines.front().bench.measured ? ", and measured" : "");
  fmt::print("{:<14} {:<24} {:>14} {:>8} {:>7} {:>7} {:>8} {:>8} {:>11} {:>10} {:>10} {:>10} {:>8} {:>9}  {}\n",
             "model", "mode", "parameters", "weights", "master", "grads", "moments", "state", "activations",
             "workspace", "reordered", "arena", "in all", "offloaded", lines.front().bench.measured ? "measured" : "");
  for (const Line& l : lines) {
    const double tokens = double(l.bench.tokens), peak = double(l.bench.predicted.peak);
    const auto per = [&](Category c) { return fmt::format("{:.2f}", l.a_parameter(l.of(c))); };
    fmt::print(
        "{:<14} {:<24} {:>14} {:>8} {:>7} {:>7} {:>8} {:>8.2f} {:>9}/t {:>10} {:>10} {:>10} {:>8.2f} {:>9}  {}\n",
        l.model, l.mode, with_thousands(l.bench.parameters), per(Category::parameters), per(Category::master),
        per(Category::gradients), per(Category::optimizer), l.a_parameter(double(l.bench.state_bytes)),
        human_bytes((l.of(Category::activations) + l.of(Category::batch)) / tokens),
        human_bytes(l.of(Category::workspace)), human_bytes(l.of(Category::reordered)), human_bytes(peak),
        l.a_parameter(peak), fmt::format("{:.2f}", l.a_parameter(double(l.bench.predicted.offloaded))),
        measured_text(l.bench));
  }
  fmt::print(
      "weights to state, in all, offloaded: bytes a parameter; of fused gradients the largest bucket; of offloaded "
      "state the pieces that are in memory, in all without it; activations: a token of {}\n",
      counted(lines.front().bench.tokens, "token"));
  if (libraries > 0)
    fmt::print("beside it {} of program and libraries, once a process\n", human_bytes(double(libraries)));
  fmt::print("\nWhat others take for the states\n");
  for (const PublishedMemory& p : published_memory()) fmt::print("{:>5.0f}  {:<32} {}\n", p.bytes, p.name, p.source);
}

nlohmann::json json_of(const Line& l) {
  nlohmann::json j = {{"model", l.model},
                      {"mode", l.mode},
                      {"parameters", l.bench.parameters},
                      {"tokens", l.bench.tokens},
                      {"state_bytes", l.bench.state_bytes},
                      {"arena_bytes", l.bench.predicted.peak},
                      {"offloaded_bytes", l.bench.predicted.offloaded}};
  for (int c = 0; c < category_count; ++c) j["bytes"][std::string(name_of(Category(c)))] = l.bytes(Category(c));
  if (l.bench.counted_peak > 0) j["counted_arena_bytes"] = l.bench.counted_peak;
  if (l.bench.measured) j["measured_bytes"] = *l.bench.measured;
  return j;
}

BarChart chart_of(const std::vector<Line>& lines) {
  BarChart chart{.title = "Bytes a parameter",
                 .series = {"weights", "master", "gradients", "moments", "activations", "workspace"}};
  for (const Line& l : lines) {
    Bar bar{.label = l.model + ", " + l.mode};
    const auto add = [&](double bytes) { bar.parts.push_back(l.a_parameter(bytes)); };
    for (const Category c : {Category::parameters, Category::master, Category::gradients, Category::optimizer})
      add(l.of(c));
    add(l.of(Category::activations) + l.of(Category::batch));
    add(l.of(Category::workspace) + l.of(Category::reordered));
    chart.bars.push_back(std::move(bar));
  }
  for (const PublishedMemory& p : published_memory()) chart.bars.push_back({p.name, {p.bytes}, ""});
  return chart;
}

// A step of a model of no size: what libraries and threads keep is there before anything is measured.
int64_t settle() {
  bench_memory(load_arguments({"model.preset=gpt2", "model.n_layers=1", "model.d_model=64", "model.n_heads=1",
                               "model.vocab_size=256", "data.seq_length=64"}),
               true);
  return anonymous_bytes();
}

void run_bench_memory(const std::vector<std::string>& words, const BenchMemoryArguments& a) {
  if (a.run && a.world > 1)
    throw ConfigError("bench memory: --run measures this process alone; keep one of --run and --world");
  const int64_t libraries = a.run ? settle() : 0;
  const std::vector<Line> lines = bench_all(words, a);
  if (!a.svg.empty()) write_file_atomically(a.svg, bar_chart_file(chart_of(lines)));
  if (!a.json) return print_lines(lines, a.world, libraries);
  nlohmann::json j = {{"libraries_bytes", libraries}};
  for (const Line& l : lines) j["cases"].push_back(json_of(l));
  fmt::print("{}\n", j.dump());
}

}  // namespace

void add_bench_memory(Command& bench) {
  Command command = bench.subcommand("memory", "bytes a parameter of models and modes: planned, counted, measured");
  const auto arguments = add_config_arguments(command);
  const auto a = std::make_shared<BenchMemoryArguments>();
  command.option("--preset", a->presets, "models by preset; without a configuration: gpt2");
  command.option("--mode", a->modes,
                 "a mode by name, or settings: precision.mode=bf16,memory.recompute=full; default all");
  command.option("--world", a->world, "processes that train together: the memory of the first of them").range(1, 65536);
  command.flag("--run", a->run, "run a step of each, and measure the memory of this process");
  command.flag("--json", a->json, "one line of JSON in place of text");
  command.option("--svg", a->svg, "draw it, with others' figures beside it").type_name("FILE.svg");
  command.action([arguments, a] { run_bench_memory(arguments(), *a); });
}

}  // namespace mixtape
