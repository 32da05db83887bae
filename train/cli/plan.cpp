// mixtape plan CONFIG: what a run will take, before it takes it.
#include <algorithm>
#include <cmath>

#include "train/bench/fit.h"
#include "train/bench/traffic.h"
#include "train/cli/commands.h"
#include "train/config/config.h"
#include "train/data/tokenizer/tokenizer.h"
#include "train/devices.h"
#include "train/objective/make.h"
#include "train/report/scaling.h"
#include "train/report/units.h"
#include "train/step.h"

namespace mixtape {
namespace {

struct PlanArguments {
  double flops_per_second = 0, tokens_per_second = 0, bytes_per_second = 0;
  int world = 1;
  bool models = false, parameters = false;
  std::string fit;
};

void print_parameters(const ParameterLayout& layout) {
  for (const ParameterEntry& entry : layout.entries())
    fmt::print("{:<44} {:>16}{}\n", entry.name, fmt::format("{}", entry.whole), entry.learns ? "" : "  frozen");
}

void print_memory(const MemoryPlan& plan, double parameters, int world) {
  fmt::print("\nMemory{} (from a dry run of one step, a validation and a sample)\n",
             world == 1 ? "" : fmt::format(" of each of {} processes", world));
  const auto row = [&](std::string_view name, int64_t bytes) {
    if (bytes > 0)
      fmt::print("  {:<12} {:>12}  {:>7.2f} bytes a parameter\n", name, human_bytes(double(bytes)),
                 double(bytes) / parameters);
  };
  for (int c = 0; c < category_count; ++c) row(name_of(Category(c)), plan.at_peak[c]);
  int64_t held = 0;
  for (const int64_t bytes : plan.at_peak) held += bytes;
  row("holes", plan.peak - held);
  row("arena", plan.peak);
  row("offloaded", plan.offloaded);
  if (plan.offloaded > plan.offloaded_activations) row("of layers", plan.offloaded_activations);
}

void print_exchange(const StepTraffic& e, const PlanArguments& a, double flops_of_step) {
  fmt::print("\nExchange, each process and step\n  gradients    {:>12}\n", human_bytes(e.gradients));
  if (e.layers > 0) fmt::print("  layers       {:>12}\n", human_bytes(e.layers));
  if (e.weights > 0) fmt::print("  weights      {:>12}\n", human_bytes(e.weights));
  if (a.flops_per_second <= 0 || a.bytes_per_second <= 0) return;
  const double compute = flops_of_step / a.world / a.flops_per_second;
  const double step = step_seconds(e, compute, a.bytes_per_second);
  fmt::print("  time         {:.3g} s, beside {:.3g} s of computing: a step of {:.3g} s, {:.0f} % of it computing\n",
             e.bytes() / a.bytes_per_second, compute, step, 100 * compute / step);
}

// The data may not be prepared yet: a plan then leaves epochs out.
void print_epochs(const Config& config) {
  try {
    const auto tokenizer = load_tokenizer(config.data.tokenizer);
    const auto objective = training_objective(config, *tokenizer);
    const std::vector<uint64_t> samples = objective->counts(uint64_t(config.total_samples()));
    const std::vector<SourceStatistics> sources = objective->statistics();
    for (size_t i = 0; i < sources.size(); ++i)
      fmt::print("  {:<20} {:>14} tokens, {:.2f} epochs\n", sources[i].name,
                 with_thousands(int64_t(sources[i].tokens_per_epoch)),
                 double(samples[i]) / sources[i].samples_per_epoch);
  } catch (const Error& error) {
    fmt::print("  {}\n", error.what());
  }
}

void print_time(const PlanArguments& a, double tokens, double flops) {
  double seconds = 0;
  if (a.tokens_per_second > 0) seconds = tokens / a.tokens_per_second;
  if (a.flops_per_second > 0) seconds = flops / a.flops_per_second / a.world;
  if (seconds > 0) fmt::print("\nTime at that speed: {}\n", human_duration(seconds));
}

std::string option_text(const FittingOption& option) {
  std::string text = fmt::format("{} train.micro_batch_size={}: {}", option.settings, option.micro_batch_size,
                                 human_bytes(double(option.peak_bytes)));
  if (option.offloaded > 0)
    text += fmt::format(" and {} outside, read and written in each step", human_bytes(double(option.offloaded)));
  if (option.exchanged > 0) text += fmt::format(", {} exchanged in a step", human_bytes(option.exchanged));
  if (option.step_seconds > 0) text += fmt::format(" of {:.3g} s", option.step_seconds);
  return text;
}

void print_fit(const Config& config, const PlanArguments& a) {
  const Room room{bytes_of(a.fit, "--fit"), a.world, {a.flops_per_second, a.bytes_per_second}};
  const std::vector<FittingOption> options = options_that_fit(config, room);
  fmt::print("In {}{}, the fastest first:\n", human_bytes(double(room.bytes)),
             a.world == 1 ? "" : fmt::format(" of each of {} processes", a.world));
  for (const FittingOption& option : options)
    fmt::print("  {}{}{}\n", option_text(option), option.extra_flops > 0 ? ", a third more arithmetic" : "",
               option.same_training ? "" : ", trains otherwise");
  if (options.empty()) fmt::print("  nothing: this model does not fit in any way that this version knows\n");
  const auto largest = largest_that_fits(config, room);
  if (largest)
    fmt::print("The largest preset of its kind that fits: {}, {} parameters, with {}\n", largest->preset,
               with_thousands(largest->parameters), option_text(largest->option));
  else
    fmt::print("No preset of its kind fits.\n");
}

void plan(const ResolvedConfig& resolved, const PlanArguments& a) {
  const Config& config = resolved.config;
  check(config, resolved.origins, build_features());
  Config of_ranks = config;
  if (!a.fit.empty()) of_ranks.train.micro_batch_size = 1;  // is found
  check_ranks(of_ranks, a.world, resolved.origins);
  const std::unique_ptr<Communicator> ranks = planned_rank(a.world);
  const RankGrid grid(*ranks, int(config.parallel.tensor_parallel_size));
  const EngineOptions options = training_options(config, grid);
  Transformer model(options.model, options.row_length, options.decoder_length, options.lora,
                    TensorParallel(options.layer_slice()));
  model.freeze(options.frozen);
  if (a.parameters) return print_parameters(model.layout());
  if (!a.fit.empty()) return print_fit(config, a);
  const MemoryPlan memory = plan_training(options, config, grid);  // first: it is what may fail
  const double parameters = double(model.layout().parameter_count());
  const double tokens = double(config.total_tokens());
  const double per_token = model.flops_per_token(options.lengths());

  fmt::print("Parameters        {}\n", with_thousands(model.layout().parameter_count()));
  if (!options.frozen.empty()) fmt::print("  of which learn  {}\n", with_thousands(model.layout().learning_count()));
  fmt::print("Tokens            {} = {} steps of {}{}\n", with_thousands(int64_t(tokens)),
             with_thousands(config.total_steps()), config.train.batch_ramp.tokens > 0 ? "up to " : "",
             with_thousands(config.tokens_per_step()));
  fmt::print(
      "FLOPs a token     {:.4g} = 6 x (weights of all matrix products, the head included) + attention "
      "(6 L T d where it is causal, else 12)\n",
      per_token);
  fmt::print("Model FLOPs       {:.4g}\n", per_token * tokens);
  if (options.recompute == RecomputePolicy::full)
    fmt::print("Hardware FLOPs    {:.4g} (forward twice: recomputation)\n", per_token * tokens * 4 / 3);
  print_memory(memory, parameters, a.world);
  if (a.world > 1) {
    const double hardware = per_token * (options.recompute == RecomputePolicy::full ? 4.0 / 3 : 1);
    print_exchange(step_traffic(config, options, model, a.world), a, hardware * double(config.tokens_per_step()));
  }
  fmt::print("\nData\n");
  print_epochs(config);
  print_time(a, tokens, per_token * tokens);
  fmt::print("\nCompute-optimal tokens for {} parameters\n{}", with_thousands(model.layout().parameter_count()),
             tokens_for_parameters_table(parameters));
  fmt::print("\nCompute-optimal size for this budget, C = 6 N D = {:.4g} FLOPs\n{}", 6 * parameters * tokens,
             allocations_table(6 * parameters * tokens));
  fmt::print("\nThis run\n{}", plan_table(parameters, tokens));
  if (parameters < least_fitted_parameters || parameters > most_fitted_parameters)
    fmt::print("The laws were fitted on models of {} to {} parameters: for this size they extrapolate.\n",
               human_count(least_fitted_parameters), human_count(most_fitted_parameters));
  if (a.models) fmt::print("\nPublished models\n{}", known_models_table());
}

}  // namespace

void add_plan_command(Command& app) {
  Command command = app.subcommand("plan", "parameters, memory, FLOPs, epochs and scaling laws of a run");
  const auto arguments = add_config_arguments(command);
  const auto a = std::make_shared<PlanArguments>();
  command.option("--flops-per-second", a->flops_per_second, "sustained speed of a process, for an estimate of time")
      .at_least(0);
  command.option("--tokens-per-second", a->tokens_per_second, "the same in tokens").at_least(0);
  command.option("--bytes-per-second", a->bytes_per_second, "that a process sends to others, for the time of a step")
      .at_least(0);
  command
      .option("--world", a->world,
              "processes that train together: the memory of the first of them; with --fit also how they may share out")
      .range(1, 65536);
  command.flag("--parameters", a->parameters, "only list the parameters: names, as patterns match them, and shapes");
  command.option("--fit", a->fit, "which settings, and which model of its kind, fit into so much memory")
      .type_name("24GiB");
  command.flag("--models", a->models, "also the table of published models");
  command.action([arguments, a] { plan(load_arguments(arguments()), *a); });
}

}  // namespace mixtape
