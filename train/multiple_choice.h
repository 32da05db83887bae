// Multiple choice by log-likelihood: a model answers with the choice that it holds the likeliest after the question.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "train/data/tokenizer/tokenizer.h"
#include "train/engine.h"

namespace mixtape {

struct Choice {
  std::vector<int32_t> tokens;
  int64_t bytes = 0;  // of its text; 0: unknown
};
struct Question {
  std::vector<int32_t> context;
  std::vector<Choice> choices;
  int32_t answer = 0;
};

// Questions as text, one JSON object a line:
//   {"context": "The sky is", "choices": ["blue.", "loud."], "answer": 0}
// HellaSwag's own names (ctx, endings, label) are accepted. `answer` counts from 0. A blank is put between context and
// choice unless one of them has white space there.
struct TextQuestion {
  std::string context;
  std::vector<std::string> choices;
  int32_t answer = 0;
};
// Throws DataError that names the line.
std::vector<TextQuestion> read_questions(const std::filesystem::path& path);

// As a decoder reads them: the tokens of context and choice are those of both texts together, as language models have
// seen words, and belong to the context as far as the context alone has the same ones. After an encoder the two are
// texts of their own, with what the tokenizer's template puts around the first, and sentinels (<extra_id_0>) are read.
// `solved` are put before each context with their answers, separated by empty lines (few-shot).
std::vector<Question> tokenised(const std::vector<TextQuestion>& questions, const std::vector<TextQuestion>& solved,
                                const Tokenizer& tokenizer, bool after_encoder);

// llm.c's file of questions as GPT-2's tokens (HellaSwag, MMLU): 256 int32 of header (20240522, version 1, count), then
// uint16: 65535, bytes, index, label, choices, and for the context and each choice a length and its tokens. Throws
// DataError.
std::vector<Question> read_llmc_questions(const std::filesystem::path& path);
bool is_llmc_questions(const std::filesystem::path& path);

struct ChoiceResult {
  int64_t questions = 0;
  int64_t right = 0;           // by the log-likelihood of the whole choice
  int64_t right_by_token = 0;  // divided by its tokens: llm.c's measure
  int64_t right_by_byte = 0;   // divided by the bytes of its text: lm-evaluation-harness's acc_norm
  bool has_bytes = false;
  int64_t shortened = 0;   // questions of which the model read the end alone
  double answer_loss = 0;  // mean over the tokens of right answers, nats
};

// What an engine needs to answer: rows of `length`, of a decoder after an encoder too.
struct ChoiceShape {
  int64_t length = 1, decoder_length = 0;
};
// `limit`: the longest sequence that the model reads; 0: any.
ChoiceShape choice_shape(const std::vector<Question>& questions, bool after_encoder, int64_t limit);

// Several sequences share a row where they fit. `decoder_start`: of a decoder after an encoder; `begin`: what a decoder
// reads where a context is empty.
struct ChoiceStart {
  int32_t decoder_start = 0, begin = 0;
};
ChoiceResult answer(Engine& engine, const std::vector<Question>& questions, const ChoiceStart& start,
                    const std::function<void(int64_t)>& progress = {});
// Goes through the motions on an engine that plans.
void plan_answers(Engine& planning);

}  // namespace mixtape
