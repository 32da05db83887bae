// objective: what the model is trained to predict.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "core/base/fields.h"

namespace mixtape {

enum class ObjectiveKind { causal_lm, masked_lm, span_corruption, denoising, classify, tag, seq2seq, instruct };

// Fine-tuning: data are examples (train/data/example.h), not streams of text.
constexpr bool is_fine_tuning(ObjectiveKind kind) {
  return kind == ObjectiveKind::classify || kind == ObjectiveKind::tag || kind == ObjectiveKind::seq2seq ||
         kind == ObjectiveKind::instruct;
}
// What is predicted are objective.labels, not tokens.
constexpr bool predicts_labels(ObjectiveKind kind) {
  return kind == ObjectiveKind::classify || kind == ObjectiveKind::tag;
}

constexpr auto names(std::type_identity<ObjectiveKind>) {
  using E = ObjectiveKind;
  return std::array{Named<E>{E::causal_lm, "causal_lm"},
                    Named<E>{E::masked_lm, "masked_lm"},
                    Named<E>{E::span_corruption, "span_corruption"},
                    Named<E>{E::denoising, "denoising"},
                    Named<E>{E::classify, "classify"},
                    Named<E>{E::tag, "tag"},
                    Named<E>{E::seq2seq, "seq2seq"},
                    Named<E>{E::instruct, "instruct"}};
}

// How many tokens of a sequence masked LM predicts.
enum class MaskingRule { roberta, bert, bernoulli };
// What is masked as one.
enum class MaskingUnit { token, whole_word, span };

constexpr auto names(std::type_identity<MaskingRule>) {
  using E = MaskingRule;
  return std::array{Named<E>{E::roberta, "roberta"}, Named<E>{E::bert, "bert"}, Named<E>{E::bernoulli, "bernoulli"}};
}
constexpr auto names(std::type_identity<MaskingUnit>) {
  using E = MaskingUnit;
  return std::array{Named<E>{E::token, "token"}, Named<E>{E::whole_word, "whole_word"}, Named<E>{E::span, "span"}};
}

struct ObjectiveConfig {
  ObjectiveKind name = ObjectiveKind::causal_lm;
  double label_smoothing = 0;

  // classify, tag
  std::vector<std::string> labels;

  // masked_lm
  MaskingRule masking = MaskingRule::roberta;
  MaskingUnit masking_unit = MaskingUnit::token;
  double mask_rate = 0.15;
  double mask_token_share = 0.8;
  double random_token_share = 0.1;
  std::optional<int64_t> max_predictions;

  // span_corruption
  double noise_density = 0.15;
  double mean_span_length = 3;

  // denoising
  double infill_rate = 0.3;
  double poisson_lambda = 3.5;
  double random_mask_share = 0.1;
  double permute_sentences = 1;
  double delete_rate = 0;
  double insert_rate = 0;
  double rotate_rate = 0;
};

constexpr auto fields(std::type_identity<ObjectiveConfig>) {
  using C = ObjectiveConfig;
  constexpr Range share{0, 1};
  return std::tuple{
      field("name", &C::name,
            "causal_lm for model.family decoder, masked_lm for encoder, span_corruption (T5) or denoising (BART) for "
            "encoder_decoder; fine-tuning: classify or tag for encoder, seq2seq for encoder_decoder, instruct for "
            "decoder; docs/objectives.md, docs/finetuning.md",
            refused_on_resume("the loss would mean something else; start a new run with run.init_from")),
      field("label_smoothing", &C::label_smoothing,
            "in training, this share of the target distribution is spread evenly over the vocabulary (0.1 in the "
            "original Transformer); validation has none",
            from_to_below(0, 1), allowed_on_resume),
      field("labels", &C::labels, "classify, tag: the labels' names, in the order of their numbers",
            refused_on_resume("the output layer was trained for these; start a new run with run.init_from")),
      field(
          "masking", &C::masking,
          "masked_lm: tokens predicted of a sequence of n: roberta, floor(rate n + u) with u uniform in [0, 1); bert, "
          "round(rate n), at least 1; bernoulli, each token by itself"),
      field("masking_unit", &C::masking_unit, "masked_lm: token, whole_word, or span (SpanBERT: runs of whole words)"),
      field("mask_rate", &C::mask_rate, "masked_lm: share of the tokens that are predicted", above_up_to(0, 0.9),
            Aliases{"mlm_probability", "masked_lm_prob", "mask_prob"}),
      field("mask_token_share", &C::mask_token_share, "masked_lm: of the predicted tokens, those that show [MASK]",
            share),
      field("random_token_share", &C::random_token_share,
            "masked_lm: of the predicted tokens, those that show a random token; the rest show themselves", share),
      field("max_predictions", &C::max_predictions,
            "masked_lm: bert: predict no more tokens a sequence; null: no limit", Range{1, 1 << 24},
            Aliases{"max_predictions_per_seq"}),
      field("noise_density", &C::noise_density, "span_corruption: share of the tokens that are cut out",
            above_up_to(0, 0.9)),
      field("mean_span_length", &C::mean_span_length, "span_corruption: tokens in a span on average", Range{1, 1000},
            Aliases{"mean_noise_span_length"}),
      field("infill_rate", &C::infill_rate, "denoising: share of the words that text infilling replaces", share,
            Aliases{"mask_ratio"}),
      field("poisson_lambda", &C::poisson_lambda, "denoising: words in a replaced span on average (Poisson)",
            Range{0.1, 100}),
      field("random_mask_share", &C::random_mask_share,
            "denoising: of the spans, those that become a random token in place of [MASK]", share,
            Aliases{"mask_random"}),
      field("permute_sentences", &C::permute_sentences, "denoising: share of the sentences that change places", share),
      field("delete_rate", &C::delete_rate, "denoising: share of the tokens that are left out", share),
      field("insert_rate", &C::insert_rate, "denoising: masks put in, per token", share),
      field("rotate_rate", &C::rotate_rate, "denoising: share of the documents that begin at a random token", share),
  };
}

}  // namespace mixtape
