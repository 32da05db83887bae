// precision: the types of arithmetic and storage, and the fp16 loss scaler.
#pragma once

#include <array>
#include <cstdint>
#include <tuple>

#include "core/base/fields.h"
#include "core/ops/optimizer_state.h"

namespace mixtape {

enum class PrecisionMode { fp32, tf32, fp16, bf16, fp8, int8_qat };
enum class GradientStorage { fp32, bf16, fused };
enum class HysteresisRule { megatron, apex };

constexpr auto names(std::type_identity<PrecisionMode>) {
  using E = PrecisionMode;
  return std::array{Named<E>{E::fp32, "fp32"}, Named<E>{E::tf32, "tf32"}, Named<E>{E::fp16, "fp16"},
                    Named<E>{E::bf16, "bf16"}, Named<E>{E::fp8, "fp8"},   Named<E>{E::int8_qat, "int8_qat"}};
}
constexpr auto names(std::type_identity<MasterWeights>) {
  using E = MasterWeights;
  return std::array{Named<E>{E::fp32, "fp32"}, Named<E>{E::remainder16, "remainder16"}, Named<E>{E::none, "none"}};
}
constexpr auto names(std::type_identity<GradientStorage>) {
  using E = GradientStorage;
  return std::array{Named<E>{E::fp32, "fp32"}, Named<E>{E::bf16, "bf16"}, Named<E>{E::fused, "fused"}};
}
constexpr auto names(std::type_identity<MomentFormat>) {
  using E = MomentFormat;
  return std::array{Named<E>{E::fp32, "fp32"}, Named<E>{E::bf16, "bf16"}, Named<E>{E::int8, "int8"},
                    Named<E>{E::fp8, "fp8"}};
}
constexpr auto names(std::type_identity<HysteresisRule>) {
  using E = HysteresisRule;
  return std::array{Named<E>{E::megatron, "megatron"}, Named<E>{E::apex, "apex"}};
}

struct LossScaleConfig {
  double initial = 65536;
  int64_t growth_interval = 2000;
  double growth = 2;
  double backoff = 0.5;
  double min = 0;
  int64_t hysteresis = 1;
  HysteresisRule hysteresis_rule = HysteresisRule::megatron;
};

constexpr auto fields(std::type_identity<LossScaleConfig>) {
  using C = LossScaleConfig;
  return std::tuple{
      field("initial", &C::initial, "the scale of the first step", above_up_to(0, 3e38),
            Aliases{"init_scale", "initial_loss_scale", "native_amp_init_scale"}),
      field("growth_interval", &C::growth_interval, "finite steps in a row before the scale grows", Range{1, 1e9},
            Aliases{"loss_scale_window", "native_amp_growth_interval"}),
      field("growth", &C::growth, "factor when it grows", Range{1, 65536}, Aliases{"growth_factor"}),
      field("backoff", &C::backoff, "factor after an overflow", between(0, 1), Aliases{"backoff_factor"}),
      field("min", &C::min, "the least scale; 0: none, as in PyTorch", Range{0, 3e38}, Aliases{"min_loss_scale"}),
      field("hysteresis", &C::hysteresis, "overflows that are borne before the scale falls; 1: falls at once",
            Range{1, 1e6}),
      field("hysteresis_rule", &C::hysteresis_rule,
            "when the count of borne overflows starts again: megatron, when the scale grows; apex, at a finite step"),
  };
}

struct Fp8Config {
  int64_t amax_history = 1024;
  int64_t margin = 0;
};

constexpr auto fields(std::type_identity<Fp8Config>) {
  using C = Fp8Config;
  return std::tuple{
      field("amax_history", &C::amax_history,
            "steps whose largest magnitudes decide the scale of the next; 1: the last alone", Range{1, 65536},
            Aliases{"amax_history_len"},
            refused_on_resume("the checkpoint has a history of another length; start a new run with run.init_from")),
      field("margin", &C::margin, "scales leave a factor 2^margin of the codes' range for tensors that grow",
            Range{0, 8}),
  };
}

struct PrecisionConfig {
  PrecisionMode mode = PrecisionMode::fp32;
  MasterWeights master = MasterWeights::fp32;
  GradientStorage gradients = GradientStorage::fp32;
  MomentFormat moments = MomentFormat::fp32;
  LossScaleConfig loss_scale;
  Fp8Config fp8;
};

constexpr auto fields(std::type_identity<PrecisionConfig>) {
  using C = PrecisionConfig;
  constexpr auto stored = refused_on_resume(
      "the checkpoint stores weights and optimizer state in these types; start a new run with run.init_from");
  return std::tuple{
      field("mode", &C::mode,
            "type of the matrix products and of the weights they read; where the hardware lacks it, it is storage only "
            "and arithmetic is fp32. fp8, int8_qat: bf16, and the layers' operands are rounded through 8-bit codes. "
            "Sums, softmax, norms and the loss are fp32 in every mode",
            stored),
      field("master", &C::master,
            "what the optimizer updates beside 16-bit weights: fp32 copies, a 16-bit remainder that completes a bf16 "
            "weight to fp32 (the same bits), or none (stochastic rounding)",
            Aliases{"master_weights"}, stored),
      field(
          "gradients", &C::gradients,
          "type in which gradients are kept and added; fused: each is applied in backward, as soon as it is complete, "
          "and never stored with the others (docs/memory.md)"),
      field("moments", &C::moments,
            "how the optimizer's moments are stored, rounded stochastically: of int8 and fp8 256 have one fp32 scale",
            stored),
      field("loss_scale", &C::loss_scale, "the dynamic loss scaler; of mode fp16 only"),
      field("fp8", &C::fp8, "how scales follow magnitudes; of mode fp8 only"),
  };
}

}  // namespace mixtape
