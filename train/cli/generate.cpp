// mixtape generate MODEL: text from a prompt, or from a file of prompts; or tokens in place of masks (fill_mask.cpp).
#include <fstream>
#include <iostream>

#include "core/base/clock.h"
#include "train/cli/arguments.h"
#include "train/cli/commands.h"
#include "train/cli/fill_mask.h"
#include "train/generate.h"
#include "train/report/console.h"
#include "train/text_sampler.h"

namespace mixtape {
namespace {

struct GenerateArguments {
  std::string prompt, prompts_file, masked;
  SamplingOptions sampling;
  bool greedy = false, ignore_eos = false, quiet = false;
  int64_t batch_size = 8;
};

// One prompt a line (\n in it stands for a line break), so that few-shot prompts fit too.
std::vector<std::string> read_prompts(const std::string& file) {
  std::ifstream in(file);
  if (!in) throw DataError("{}: cannot be read; expected one prompt a line", file);
  std::vector<std::string> prompts;
  for (std::string line; std::getline(in, line);) {
    std::string prompt;
    for (size_t i = 0; i < line.size(); ++i) {
      const bool escape = line[i] == '\\' && i + 1 < line.size() && (line[i + 1] == 'n' || line[i + 1] == '\\');
      prompt += !escape ? line[i] : line[++i] == 'n' ? '\n' : '\\';
    }
    prompts.push_back(prompt);
  }
  if (prompts.empty()) throw DataError("{}: empty; expected one prompt a line", file);
  return prompts;
}

void generate(const ModelArguments& model_arguments, GenerateArguments a) {
  if (!a.prompt.empty() && !a.prompts_file.empty())
    throw ConfigError("generate: --prompt and --prompts are both given; keep one");
  if (a.greedy) a.sampling.temperature = 0;
  const std::vector<std::string> prompts =
      a.prompts_file.empty() ? std::vector<std::string>{a.prompt} : read_prompts(a.prompts_file);

  std::vector<std::vector<int32_t>> ids;
  int64_t slots = 0, capacity = 0;
  LoadedModel model = load_model(model_arguments, [&](const HfModel& files, const Tokenizer* tokenizer) {
    if (!tokenizer) throw DataError("{}: no tokenizer beside the model", model_arguments.model);
    if (!can_generate(files.spec))
      throw ConfigError("generate: {} is an encoder, which has no next token; use --fill-mask \"... [MASK] ...\"",
                        model_arguments.model);
    if (files.spec.family == Family::encoder_decoder)
      a.sampling.decoder_start = decoder_start_of(files, model_arguments.model);
    int64_t longest = 0;
    for (const std::string& prompt : prompts) {
      ids.push_back(prompt_ids(*tokenizer, prompt, files.spec.family == Family::encoder_decoder));
      longest = std::max(longest, int64_t(ids.back().size()));
    }
    slots = std::min(a.batch_size, int64_t(ids.size()));
    capacity = longest + a.sampling.max_new_tokens;
    const bool bounded = files.spec.position == Position::learned;
    if (bounded && longest >= files.spec.max_positions)
      throw ConfigError("generate: a prompt of {} tokens, but the model has {} positions", longest,
                        files.spec.max_positions);
    if (bounded) capacity = std::min(capacity, files.spec.max_positions);
    const SamplingOptions two{.max_new_tokens = 2, .temperature = 0};
    return EngineShape{
        .row_length = capacity, .decoder_length = capacity, .rehearse = [=](Engine& engine) {
          Generator(engine, slots, capacity)
              .generate(std::vector<std::vector<int32_t>>(size_t(slots), std::vector<int32_t>(size_t(longest))), two);
        }};
  });
  const Tokenizer& tokenizer = tokenizer_of(model);
  a.sampling.tokens = tokenizer.vocab_size();
  a.sampling.stop_token = a.ignore_eos ? -1 : tokenizer.eos_id().value_or(-1);

  Generator generator(*model.engine, slots, capacity);
  const bool one = ids.size() == 1;
  // After an encoder the text is an answer to the prompt, not its continuation.
  const bool continues = model.files.spec.family == Family::decoder;
  GeneratedText stream(tokenizer, continues && !prompts[0].empty());
  if (one && continues && !a.quiet) std::cout << prompts[0] << std::flush;
  const auto started = Clock::now();
  const auto tokens = generator.generate(ids, a.sampling, [&](size_t, int32_t token) {
    if (one) std::cout << stream.next(token) << std::flush;
  });
  const double seconds = seconds_since(started);
  size_t total = 0;
  for (const auto& t : tokens) total += t.size();
  if (one) {
    std::cout << stream.finish() << "\n";
  } else {
    for (size_t i = 0; i < tokens.size(); ++i) {
      GeneratedText decoder(tokenizer, continues && !prompts[i].empty());
      std::string text;
      for (int32_t token : tokens[i]) text += decoder.next(token);
      const std::string before = a.quiet ? "" : continues ? prompts[i] : prompts[i] + "\n";
      std::cout << before << text << decoder.finish() << "\n" << (a.quiet ? "" : "---\n");
    }
  }
  if (!a.quiet)
    std::cerr << fmt::format("[{} tokens in {:.2f} s, {:.1f} tokens/s]\n", total, seconds, double(total) / seconds);
}

}  // namespace

void add_generate_command(Command& app) {
  Command command = app.subcommand("generate", "write text with a model");
  const auto model = add_model_arguments(command);
  const auto a = std::make_shared<GenerateArguments>();
  command.option("--prompt,-p", a->prompt, "what the text begins with; empty: a new document");
  command.option("--prompts", a->prompts_file, "a file with one prompt a line; \\n stands for a line break");
  command.option("--max-new-tokens,-n", a->sampling.max_new_tokens).range(1, 1 << 20);
  command.option("--temperature", a->sampling.temperature, "0: greedy").range(0.0, 100.0);
  command.option("--top-k", a->sampling.top_k, "sample among the k likeliest; 0: all").at_least(0);
  command.option("--top-p", a->sampling.top_p, "sample among the likeliest that reach p together").range(0.0, 1.0);
  command.option("--seed", a->sampling.seed).at_least(0);
  command.option("--batch-size", a->batch_size, "prompts at a time").range(1, 4096);
  command.flag("--greedy", a->greedy, "always the likeliest token");
  command.flag("--ignore-eos", a->ignore_eos, "go on after an end of sequence");
  command.flag("--quiet,-q", a->quiet, "print the new text only");
  command.option("--fill-mask", a->masked,
                 "of an encoder: a text with [MASK]; prints the --top-k (5) likeliest tokens with their probabilities");
  command.action([model, a] {
    if (a->masked.empty()) return generate(*model, *a);
    if (!a->prompt.empty() || !a->prompts_file.empty())
      throw ConfigError("generate: --fill-mask and --prompt are both given; keep one");
    fill_mask(*model, a->masked, a->sampling.top_k > 0 ? a->sampling.top_k : 5);
  });
}

}  // namespace mixtape
