#include "train/cli/eval_choices.h"

#include <cmath>
#include <optional>

#include "train/multiple_choice.h"
#include "train/report/console.h"
#include "train/report/units.h"

namespace mixtape {
namespace {

std::vector<TextQuestion> shots_of(const ChoiceArguments& a) {
  if (a.shots == 0 && a.shots_file.empty()) return {};
  if (a.shots == 0 || a.shots_file.empty())
    throw ConfigError("eval: --shots and --shots-from go together: how many questions of which file");
  std::vector<TextQuestion> shots = read_questions(a.shots_file);
  if (int64_t(shots.size()) < a.shots)
    throw DataError("{}: {} questions, but --shots is {}", a.shots_file, shots.size(), a.shots);
  shots.resize(size_t(a.shots));
  return shots;
}

std::vector<Question> questions_of(const ChoiceArguments& a, const Tokenizer* tokenizer, bool after_encoder) {
  if (is_llmc_questions(a.file)) {
    if (after_encoder)
      throw ConfigError("eval: {} holds tokens of GPT-2, which are for a decoder; expected JSON lines", a.file);
    if (a.shots > 0) throw ConfigError("eval: --shots are text, but {} holds tokens; expected JSON lines", a.file);
    return read_llmc_questions(a.file);
  }
  if (!tokenizer) throw DataError("eval: no tokenizer beside the model, which the questions of {} need", a.file);
  return tokenised(read_questions(a.file), shots_of(a), *tokenizer, after_encoder);
}

// A share and the standard error of its estimate.
std::string share(int64_t part, int64_t of) {
  const double p = double(part) / double(of);
  return fmt::format("{:6.2f} %  +- {:.2f}", 100 * p, 100 * std::sqrt(p * (1 - p) / double(of)));
}

void print_json(const ChoiceResult& r) {
  const auto part = [&](int64_t n) { return double(n) / double(r.questions); };
  fmt::print(
      "{{\"questions\": {}, \"accuracy\": {}, \"accuracy_by_token\": {}, \"accuracy_by_byte\": {}, "
      "\"answer_loss\": {}, \"shortened\": {}}}\n",
      r.questions, part(r.right), part(r.right_by_token), r.has_bytes ? fmt::to_string(part(r.right_by_byte)) : "null",
      r.answer_loss, r.shortened);
}

}  // namespace

void evaluate_choices(const ModelArguments& arguments, const ChoiceArguments& a) {
  std::vector<Question> questions;
  ChoiceStart start;
  LoadedModel model = load_model(arguments, [&](const HfModel& files, const Tokenizer* tokenizer) {
    if (!can_generate(files.spec))
      throw ConfigError(
          "eval: {} is an encoder, which has no likelihood of a text; --choices is for decoders and "
          "encoder-decoders",
          arguments.model);
    const bool after_encoder = files.spec.family == Family::encoder_decoder;
    questions = questions_of(a, tokenizer, after_encoder);
    if (a.most > 0 && int64_t(questions.size()) > a.most) questions.resize(size_t(a.most));
    if (questions.empty()) throw DataError("{}: no questions", a.file);
    if (after_encoder) start.decoder_start = decoder_start_of(files, arguments.model);
    if (tokenizer) start.begin = tokenizer->bos_id().value_or(tokenizer->eos_id().value_or(0));
    const int64_t limit = files.spec.position == Position::learned ? files.spec.max_positions : 0;
    const ChoiceShape shape = choice_shape(questions, after_encoder, limit);
    return EngineShape{.rows = a.rows,
                       .row_length = shape.length,
                       .decoder_length = shape.decoder_length,
                       .rehearse = [](Engine& engine) { plan_answers(engine); }};
  });
  std::optional<Progress> progress;
  if (!a.json) progress.emplace("answering", int64_t(questions.size()), Unit::items);
  const ChoiceResult r = answer(*model.engine, questions, start, [&](int64_t done) {
    if (progress) progress->set(done);
  });
  if (progress) progress->finish();
  if (r.shortened > 0)
    console().warn(
        fmt::format("{} are longer than the model's positions: it read their end", counted(r.shortened, "question")));
  if (a.json) return print_json(r);
  fmt::print("questions      {}\n", with_thousands(r.questions));
  fmt::print("accuracy       {}\n", share(r.right, r.questions));
  fmt::print("by token       {}  (log-likelihood / tokens, as in llm.c)\n", share(r.right_by_token, r.questions));
  if (r.has_bytes)
    fmt::print("by byte        {}  (log-likelihood / bytes: acc_norm)\n", share(r.right_by_byte, r.questions));
  fmt::print("answer loss    {:.5f} nats a token\n", r.answer_loss);
}

}  // namespace mixtape
