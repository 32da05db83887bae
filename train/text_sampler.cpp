#include "train/text_sampler.h"

#include <algorithm>

#include "train/generate.h"
#include "train/objective/text_frame.h"

namespace mixtape {

GeneratedText::GeneratedText(const Tokenizer& tokenizer, bool after_prompt)
    : tokenizer_(tokenizer), decoder_(tokenizer, after_prompt, false) {}

std::string GeneratedText::next(int32_t token) {
  const auto& sentinels = tokenizer_.special_tokens().sentinels;
  const bool hidden = tokenizer_.is_special(token) && std::ranges::find(sentinels, token) == sentinels.end();
  return hidden ? "" : decoder_.next(token);
}

std::vector<int32_t> prompt_ids(const Tokenizer& tokenizer, const std::string& prompt, bool for_encoder) {
  std::vector<int32_t> ids = for_encoder ? TextFrame(tokenizer).one(prompt, INT32_MAX).tokens
                                         : tokenizer.encode(prompt, {.parse_special = true, .add_special = true});
  if (ids.empty()) {
    const std::optional<int32_t> start = tokenizer.eos_id() ? tokenizer.eos_id() : tokenizer.bos_id();
    if (!start)
      throw ConfigError("generate: an empty prompt needs a tokenizer with a beginning- or end-of-sequence token");
    ids.push_back(*start);
  }
  return ids;
}

std::vector<SampleText> sample_texts(Engine& engine, const Tokenizer& tokenizer, const LoggingConfig& config,
                                     uint64_t seed, int32_t decoder_start,
                                     const std::function<int32_t(int32_t)>& agree) {
  std::vector<std::vector<int32_t>> prompts;
  const size_t room = size_t(std::max<int64_t>(engine.options().row_length - config.sample_tokens, 1));
  for (const std::string& prompt : config.sample_prompts) {
    std::vector<int32_t> ids = prompt_ids(tokenizer, prompt, engine.options().decoder_length > 0);
    if (ids.size() > room) ids.erase(ids.begin(), ids.end() - int64_t(room));
    prompts.push_back(std::move(ids));
  }
  if (prompts.empty()) return {};
  Generator generator(engine, int64_t(prompts.size()), engine.options().row_length);
  const int64_t decoder_length = engine.options().decoder_length;
  const int64_t most = decoder_length > 0 ? std::min(config.sample_tokens, decoder_length) : config.sample_tokens;
  const auto tokens = generator.generate(prompts, {.max_new_tokens = most,
                                                   .temperature = config.sample_temperature,
                                                   .seed = seed,
                                                   .tokens = tokenizer.vocab_size(),
                                                   .stop_token = tokenizer.eos_id().value_or(-1),
                                                   .decoder_start = decoder_start,
                                                   .agree = agree});
  std::vector<SampleText> texts;
  for (size_t i = 0; i < tokens.size(); ++i) {
    GeneratedText decoder(tokenizer, decoder_length == 0 && !config.sample_prompts[i].empty());
    std::string text;
    for (int32_t token : tokens[i]) text += decoder.next(token);
    texts.push_back({config.sample_prompts[i], text + decoder.finish()});
  }
  return texts;
}

}  // namespace mixtape
