// mixtape eval MODEL DATA: loss, perplexity, bits per byte and accuracy over prepared data; or the share of right
// answers to multiple choice (eval_choices.cpp).
#include <optional>

#include "train/checkpoint/file.h"
#include "train/cli/arguments.h"
#include "train/cli/commands.h"
#include "train/cli/eval_choices.h"
#include "train/data/paths.h"
#include "train/evaluate.h"
#include "train/objective/make.h"
#include "train/report/console.h"
#include "train/report/units.h"
#include "train/resume.h"
#include "train/score.h"

namespace mixtape {
namespace {

struct EvalArguments {
  std::string data, format = "auto";
  int64_t seq_length = 0, micro_batch_size = 4, max_tokens = 0;  // 0: all
  bool no_document_mask = false, json = false;
};

// What the model was trained for: a checkpoint says it. Of other files the head and the family do; of encoder-decoders
// those whose tokenizer has sentinels fill spans. Data that are examples ask for fine-tuning.
ObjectiveConfig objective_of(const std::string& model, const HfModel& files, const Tokenizer& tokenizer,
                             bool of_examples) {
  const ModelSpec& spec = files.spec;
  const std::filesystem::path run = find_model(model) / "config.resolved.yaml";
  if (std::filesystem::exists(run)) return parse_resolved(read_text_file(run), run.string()).objective;
  if (spec.head == Head::sequence_labels) return {.name = ObjectiveKind::classify, .labels = files.ids.labels};
  if (spec.head == Head::token_labels) return {.name = ObjectiveKind::tag, .labels = files.ids.labels};
  if (spec.family == Family::decoder) return {.name = of_examples ? ObjectiveKind::instruct : ObjectiveKind::causal_lm};
  if (spec.family == Family::encoder) return {.name = ObjectiveKind::masked_lm};
  if (of_examples) return {.name = ObjectiveKind::seq2seq};
  const bool sentinels = !tokenizer.special_tokens().sentinels.empty();
  return {.name = sentinels ? ObjectiveKind::span_corruption : ObjectiveKind::denoising};
}

void evaluate_command(const ModelArguments& model_arguments, const EvalArguments& a) {
  Config config;
  LoadedModel model = load_model(model_arguments, [&](const HfModel& files, const Tokenizer* tokenizer) {
    if (!tokenizer) throw DataError("{}: no tokenizer beside the model", model_arguments.model);
    const int64_t length = a.seq_length ? a.seq_length : std::min<int64_t>(files.spec.max_positions, 1024);
    if (files.spec.position == Position::learned && length > files.spec.max_positions)
      throw ConfigError("eval: --seq-length {}, but the model has {} positions", length, files.spec.max_positions);
    config.data.seq_length = length;
    static_cast<ModelSpec&>(config.model) = files.spec;
    config.objective = objective_of(model_arguments.model, files, *tokenizer, is_json_lines(a.data));
    const bool masked = config.objective.name == ObjectiveKind::masked_lm;
    const RowShape shape = row_shape(config);
    return EngineShape{.rows = a.micro_batch_size,
                       .row_length = shape.length,
                       .decoder_length = shape.decoder_length,
                       .most_targets = shape.most_targets,
                       .rehearse = [=](Engine& engine) {
                         masked ? (void)score_targets(engine, {}) : (void)engine.run_micro_batch(false);
                       }};
  });
  const Tokenizer& tokenizer = tokenizer_of(model);
  config.data.sources = {{.name = "data", .path = a.data, .max_epochs = 1, .validation = a.data, .format = a.format}};
  config.data.validation_split = 0;
  if (a.no_document_mask) config.data.document_mask.emplace(false);
  const auto objective = validation_objective(config, tokenizer);

  int64_t total = 0;
  for (const SourceStatistics& s : objective->statistics()) total += int64_t(s.tokens_per_epoch);
  if (is_fine_tuning(config.objective.name)) total = 0;  // as many as there are targets, which nobody has counted
  const int64_t most = a.max_tokens ? a.max_tokens : INT64_MAX;
  // Bits per byte are of a text that is predicted whole.
  const Tokenizer* bytes_of = config.objective.name == ObjectiveKind::causal_lm ? &tokenizer : nullptr;
  std::optional<Progress> progress;
  if (!a.json) progress.emplace("evaluating", std::min(total, most), Unit::tokens);
  const Evaluation result = evaluate(
      *model.engine, *objective, most, bytes_of,
      [&](int64_t done) {
        if (progress) progress->set(done);
      },
      config.objective.name == ObjectiveKind::masked_lm);
  if (progress) progress->finish();
  if (a.json) {
    const auto or_null = [](const std::optional<double>& x) { return x ? fmt::to_string(*x) : "null"; };
    std::string scores;
    if (result.accuracy) scores += fmt::format("\"accuracy\": {}, ", *result.accuracy);
    for (const Score& score : result.scores) scores += fmt::format("\"{}\": {}, ", score.name, score.value);
    fmt::print("{{\"loss\": {}, \"perplexity\": {}, \"bits_per_byte\": {}, {}\"tokens\": {}}}\n", result.loss,
               result.perplexity(), or_null(result.bits_per_byte), scores, result.targets);
    return;
  }
  fmt::print("loss           {:.5f} nats\nperplexity     {:.4f}\n", result.loss, result.perplexity());
  if (result.bits_per_byte) fmt::print("bits per byte  {:.5f}\n", *result.bits_per_byte);
  for (const Score& score : result.scores) fmt::print("{:<14} {:.5f}\n", score.name, score.value);
  if (result.accuracy) fmt::print("accuracy       {:.2f} % of masked tokens\n", 100 * *result.accuracy);
  fmt::print("{:<14} {}\n", predicts_labels(config.objective.name) ? "labels" : "tokens",
             with_thousands(result.targets));
}

}  // namespace

void add_eval_command(Command& app) {
  Command command =
      app.subcommand("eval", "loss, perplexity and accuracy of a model on prepared data, or its answers to questions");
  const auto model = add_model_arguments(command);
  const auto a = std::make_shared<EvalArguments>();
  const auto choices = std::make_shared<ChoiceArguments>();
  command.option("data", a->data, "a directory or file of tokens, as data.sources[].path");
  command.option("--format", a->format, "auto, mixtape, llmc, nanogpt or megatron");
  command.option("--seq-length", a->seq_length, "default: the model's positions, at most 1024").range(1, 1 << 24);
  command.option("--batch-size", a->micro_batch_size, "sequences at a time").range(1, 65536);
  command.option("--max-tokens", a->max_tokens, "stop after so many targets; 0: all").at_least(0);
  command.flag("--no-document-mask", a->no_document_mask, "tokens see earlier documents of their sequence");
  command.flag("--json", a->json, "one line of JSON");
  command.option("--choices", choices->file,
                 "multiple choice in place of data: JSON lines with context, choices and answer, or llm.c's .bin");
  command.option("--shots", choices->shots, "solved questions before each").range(0, 1000);
  command.option("--shots-from", choices->shots_file, "JSON lines of which the first are those questions");
  command.option("--max-questions", choices->most, "0: all").at_least(0);
  command.action([model, a, choices] {
    if (a->data.empty() == choices->file.empty())
      throw ConfigError("eval: expected either data, a directory or file of tokens, or --choices FILE");
    if (choices->file.empty() && (choices->shots > 0 || choices->most > 0 || !choices->shots_file.empty()))
      throw ConfigError("eval: --shots, --shots-from and --max-questions are of --choices");
    if (choices->file.empty()) return evaluate_command(*model, *a);
    choices->rows = a->micro_batch_size;
    choices->json = a->json;
    evaluate_choices(*model, *choices);
  });
}

}  // namespace mixtape
