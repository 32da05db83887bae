#include "train/report/scaling.h"

#include <fmt/format.h>

#include <cmath>

#include "train/report/units.h"

namespace mixtape {

double predicted_loss(const ScalingFit& fit, double parameters, double tokens) {
  return fit.E + fit.A / std::pow(parameters, fit.alpha) + fit.B / std::pow(tokens, fit.beta);
}

Allocation optimal_for_flops(const ScalingFit& fit, double flops) {
  const double sum = fit.alpha + fit.beta;
  const double G = std::pow(fit.alpha * fit.A / (fit.beta * fit.B), 1 / sum);
  const double parameters = G * std::pow(flops / 6, fit.beta / sum);
  return {parameters, flops / 6 / parameters, flops};
}

// At the optimum dL/dlogN = dL/dlogD, so alpha A / N^alpha = beta B / D^beta: N and D give each other.
Allocation optimal_for_parameters(const ScalingFit& fit, double parameters) {
  const double tokens =
      std::pow(fit.beta * fit.B / (fit.alpha * fit.A) * std::pow(parameters, fit.alpha), 1 / fit.beta);
  return {parameters, tokens, model_flops(parameters, tokens)};
}

Allocation optimal_for_tokens(const ScalingFit& fit, double tokens) {
  const double parameters =
      std::pow(fit.alpha * fit.A / (fit.beta * fit.B) * std::pow(tokens, fit.beta), 1 / fit.alpha);
  return {parameters, tokens, model_flops(parameters, tokens)};
}

namespace {

// Parameters, and the tokens that are best for them by approach 1 and 2.
constexpr double published_optima[][3] = {
    {400e6, 8.0e9, 7.7e9},     {1e9, 20.2e9, 20.0e9},    {10e9, 205.1e9, 219.5e9},
    {67e9, 1.5e12, 1.7e12},    {175e9, 3.7e12, 4.3e12},  {280e9, 5.9e12, 7.1e12},
    {520e9, 11.0e12, 13.4e12}, {1e12, 21.2e12, 26.5e12}, {10e12, 216.2e12, 292.0e12},
};

// y at x on the line in logarithms through the two rows about x, or the nearest two.
double between_rows(double x, double (*x_of)(const double*, int), double (*y_of)(const double*, int), int approach) {
  size_t i = 1;
  while (i + 1 < std::size(published_optima) && x > x_of(published_optima[i], approach)) ++i;
  const double x0 = x_of(published_optima[i - 1], approach), x1 = x_of(published_optima[i], approach);
  const double y0 = y_of(published_optima[i - 1], approach), y1 = y_of(published_optima[i], approach);
  return y0 * std::pow(y1 / y0, std::log(x / x0) / std::log(x1 / x0));
}

double row_parameters(const double* row, int) { return row[0]; }
double row_tokens(const double* row, int approach) { return row[approach]; }
double row_flops(const double* row, int approach) { return model_flops(row[0], row[approach]); }

}  // namespace

Allocation approach_for_parameters(int approach, double parameters) {
  const double tokens = between_rows(parameters, row_parameters, row_tokens, approach);
  return {parameters, tokens, model_flops(parameters, tokens)};
}

Allocation approach_for_flops(int approach, double flops) {
  const double parameters = between_rows(flops, row_flops, row_parameters, approach);
  return {parameters, flops / 6 / parameters, flops};
}

Allocation rule_of_20_for_flops(double flops) {
  const double parameters = std::sqrt(flops / 6 / tokens_per_parameter_rule);
  return {parameters, tokens_per_parameter_rule * parameters, flops};
}

Allocation rule_of_20_for_parameters(double parameters) {
  const double tokens = tokens_per_parameter_rule * parameters;
  return {parameters, tokens, model_flops(parameters, tokens)};
}

double model_flops(double parameters, double tokens) { return 6 * parameters * tokens; }

double hardware_flops(double parameters, double tokens, bool recompute) {
  return (recompute ? 8 : 6) * parameters * tokens;
}

std::span<const KnownModel> known_models() {
  // D as trained on, not as collected: BLOOM's model card says 366B (350B was planned), BloombergGPT saw 569B of 709B.
  static constexpr std::array<KnownModel, 9> models{{
      {"GPT-3 175B", 175e9, 300e9},
      {"Jurassic-1 Jumbo", 178e9, 300e9},
      {"OPT-175B", 175e9, 180e9},
      {"BLOOM-176B", 176e9, 366e9},
      {"Gopher 280B", 280e9, 300e9},
      {"Chinchilla 70B", 70e9, 1.4e12},
      {"LLaMA-65B", 65.2e9, 1.4e12},
      {"LLaMA-7B", 6.7e9, 1.0e12},
      {"BloombergGPT 50B", 50.6e9, 569e9},
  }};
  return models;
}

namespace {

std::string ratio_text(double ratio) { return fmt::format("{:.{}f}", ratio, ratio < 99.95 ? 1 : 0); }

std::string allocation_row(std::string_view name, const Allocation& a) {
  const double loss = predicted_loss(default_fit, a.parameters, a.tokens);
  return fmt::format("{:<26}{:>10}{:>10}{:>12}{:>10.2e}{:>8.3f}\n", name, human_count(a.parameters),
                     human_count(a.tokens), ratio_text(a.ratio()), a.flops, loss);
}

std::string approach_name(int approach) { return fmt::format("Hoffmann 2022, approach {}", approach); }

std::string allocation_head(std::string_view title) {
  return fmt::format("{:<26}{:>10}{:>10}{:>12}{:>10}{:>8}\n", title, "params", "tokens", "tok/param", "FLOPs", "loss");
}

}  // namespace

std::string known_models_table() {
  std::string table = fmt::format("{:<18}{:>8}{:>8}{:>12}{:>10}{:>11}\n", "model", "params", "tokens", "C = 6 N D",
                                  "PF-days", "tok/param");
  for (const KnownModel& m : known_models()) {
    const double flops = model_flops(m.parameters, m.tokens);
    table += fmt::format("{:<18}{:>8}{:>8}{:>12.2e}{:>10}{:>11}\n", m.name, human_count(m.parameters),
                         human_count(m.tokens), flops, with_thousands(std::llround(flops / flops_per_petaflop_day)),
                         ratio_text(m.tokens / m.parameters));
  }
  return table;
}

std::string allocations_table(double flops) {
  std::string table = allocation_head("best use of this budget");
  for (const int a : {1, 2}) table += allocation_row(approach_name(a), approach_for_flops(a, flops));
  for (const ScalingFit& fit : scaling_fits) table += allocation_row(fit.name, optimal_for_flops(fit, flops));
  return table + allocation_row("20 tokens a parameter", rule_of_20_for_flops(flops));
}

std::string tokens_for_parameters_table(double parameters) {
  std::string table = allocation_head("best tokens for this size");
  for (const int a : {1, 2}) table += allocation_row(approach_name(a), approach_for_parameters(a, parameters));
  for (const ScalingFit& fit : scaling_fits) table += allocation_row(fit.name, optimal_for_parameters(fit, parameters));
  return table + allocation_row("20 tokens a parameter", rule_of_20_for_parameters(parameters));
}

std::string plan_table(double parameters, double tokens) {
  const double flops = model_flops(parameters, tokens);
  std::string table = fmt::format("{:<26}{:>10}{:>17}{:>10}\n", "predicted loss", "this run", "best for C", "excess");
  for (const ScalingFit& fit : scaling_fits) {
    const Allocation best = optimal_for_flops(fit, flops);
    const double here = predicted_loss(fit, parameters, tokens);
    const double least = predicted_loss(fit, best.parameters, best.tokens);
    table += fmt::format("{:<26}{:>10.3f}{:>17.3f}{:>10.3f}\n", fit.name, here, least, here - least);
  }
  return table;
}

}  // namespace mixtape
