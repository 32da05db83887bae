// Scaling laws: how large a model, on how many tokens, for a budget of compute.
//
//   L(N, D) = E + A / N^alpha + B / D^beta,   C = 6 N D     N parameters, D tokens, C model FLOPs, L loss in nats
//   N_opt = G (C / 6)^(beta / (alpha + beta)),  D_opt = (C / 6) / N_opt,  G = (alpha A / (beta B))^(1 / (alpha + beta))
//
// Three sets of constants stand side by side: as printed in Hoffmann et al. 2022 (arXiv 2203.15556, eq. 10), as in the
// TeX source of that paper, and the replication of Besiroglu et al. 2024 (arXiv 2404.10102), which is the default. The
// printed constants are rounded enough to contradict the paper's own rule of 20 tokens a parameter.
#pragma once

#include <array>
#include <span>
#include <string>
#include <string_view>

namespace mixtape {

struct ScalingFit {
  std::string_view name;
  double E, A, B, alpha, beta;
};

inline constexpr std::array<ScalingFit, 3> scaling_fits{{
    {"Hoffmann 2022, printed", 1.69, 406.4, 410.7, 0.34, 0.28},
    {"Hoffmann 2022, TeX source", 1.6934, 406.4, 410.7, 0.3392, 0.2849},
    {"Besiroglu 2024", 1.8172, 482.01, 2085.43, 0.3478, 0.3658},
}};
inline constexpr const ScalingFit& default_fit = scaling_fits[2];
inline constexpr double least_fitted_parameters = 70e6, most_fitted_parameters = 16e9;  // of the models behind the fits
inline constexpr double tokens_per_parameter_rule = 20;
inline constexpr double flops_per_petaflop_day = 1e15 * 86400;

struct Allocation {
  double parameters, tokens, flops;
  double ratio() const { return tokens / parameters; }
};

double predicted_loss(const ScalingFit&, double parameters, double tokens);
// The best split of a budget.
Allocation optimal_for_flops(const ScalingFit&, double flops);
// The budget for which a model of this size is the best one.
Allocation optimal_for_parameters(const ScalingFit&, double parameters);
// The model for which this many tokens are the best number.
Allocation optimal_for_tokens(const ScalingFit&, double tokens);
// What approach 1 (the envelope of training curves) and 2 (profiles of equal FLOPs) of Hoffmann et al. found: their
// tables 3 and A3, and lines in logarithms between and beyond the rows. Approach 3 is the first of the fits above.
Allocation approach_for_parameters(int approach, double parameters);
Allocation approach_for_flops(int approach, double flops);
// D = 20 N.
Allocation rule_of_20_for_flops(double flops);
Allocation rule_of_20_for_parameters(double parameters);

// C = 6 N D counts what the model needs; with full recomputation the hardware does the forward pass twice: 8 N D.
double model_flops(double parameters, double tokens);
double hardware_flops(double parameters, double tokens, bool recompute);

struct KnownModel {
  std::string_view name;
  double parameters, tokens;
};
// Published models: GPT-3, Jurassic-1, OPT, BLOOM, Gopher, Chinchilla, LLaMA, BloombergGPT.
std::span<const KnownModel> known_models();

// Text tables for a terminal. Their column "loss" is predicted by the default fit, so that rows can be compared.
std::string known_models_table();                            // N, D, C = 6 N D, PF-days, tokens a parameter
std::string allocations_table(double flops);                 // each fit, approach and the 20:1 rule for this budget
std::string tokens_for_parameters_table(double parameters);  // compute-optimal tokens for this size
std::string plan_table(double parameters, double tokens);    // this run against each fit: predicted loss, best loss

}  // namespace mixtape
