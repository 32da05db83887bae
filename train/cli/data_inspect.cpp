// Each sample is shown segment by segment, which is what attention sees together: what the model reads, token by token,
// and what it must predict. Where a token that is read has a target of its own (masked LM), that stands behind it in
// braces. Tokens alternate between two colours; without colour a bar stands between them.
#include "train/cli/data_inspect.h"

#include <algorithm>
#include <memory>
#include <span>

#include "core/base/error.h"
#include "train/config/config.h"
#include "train/data/tokenizer/tokenizer.h"
#include "train/objective/make.h"
#include "train/report/console.h"
#include "train/report/units.h"

namespace mixtape {
namespace {

using Ids = std::span<const int32_t>;

Ids part(const std::vector<int32_t>& all, int32_t begin, int32_t length) {
  return Ids(all).subspan(size_t(begin), size_t(length));
}

class SampleView {
 public:
  SampleView(const Tokenizer& tokenizer, const ObjectiveConfig& objective, const InspectSamples& options)
      : tokenizer_(tokenizer),
        labels_(objective.labels),
        next_token_(objective.name == ObjectiveKind::causal_lm || objective.name == ObjectiveKind::instruct),
        most_(size_t(options.tokens)),
        coloured_(console().accent("x") != "x") {}

  // A row of a batch of one row.
  void show(const Batch& batch) const {
    const bool two_stacks = batch.decoder.row_length > 0;
    const auto& cross = batch.decoder.cross_segments;
    const size_t blocks = two_stacks ? cross.size() : batch.segments.size();
    int64_t shown = 0;
    for (size_t i = 0; i < blocks; ++i) {
      if (two_stacks) {
        const Segment& s = cross[i];
        line("encoder", text_of(part(batch.tokens, s.k_start, s.k_len), {}));
        line("decoder", text_of(part(batch.decoder.tokens, s.q_start, s.q_len), {}));
        line("predicts", text_of(part(batch.targets, s.q_start, s.q_len), {}));
        shown += s.k_len;
        continue;
      }
      const Segment& s = batch.segments[i];
      if (shown >= batch.n_tokens) break;  // the rest is padding
      show_one_stack(part(batch.tokens, s.q_start, s.q_len), part(batch.targets, s.q_start, s.q_len));
      shown += s.q_len;
    }
    const int64_t padding = int64_t(batch.tokens.size()) - shown;
    if (padding > 0) line("padding", fmt::format("{} tokens", padding));
  }

 private:
  void show_one_stack(Ids tokens, Ids targets) const {
    line("reads", text_of(tokens, next_token_ ? Ids() : targets));
    if (next_token_) line("predicts", text_of(targets, {}));
  }

  static void line(std::string_view name, const std::string& text) {
    console().line(fmt::format("  {} {}", console().dim(fmt::format("{:<8}", name)), text));
  }

  std::string text_of(Ids tokens, Ids targets) const {
    std::string text;
    const size_t shown = std::min(tokens.size(), most_);
    for (size_t t = 0; t < shown; ++t) {
      if (!coloured_ && t > 0) text += '|';
      const std::string token = token_text(tokens[t]);
      if (!targets.empty() && targets[t] >= 0) {
        const std::string target = labels_.empty() ? token_text(targets[t]) : printable(labels_[size_t(targets[t])]);
        text += console().bold(token + "{" + target + "}");
      } else if (tokens[t] >= 0 && tokenizer_.is_special(tokens[t])) {
        text += console().dim(token);
      } else {
        text += t % 2 ? console().accent(token) : token;
      }
    }
    if (shown < tokens.size()) text += console().dim(fmt::format(" ... {} more", tokens.size() - shown));
    return text;
  }

  std::string token_text(int32_t id) const {
    if (id < 0) return "-";  // no target
    return printable(tokenizer_.is_special(id) ? tokenizer_.token_text(id) : tokenizer_.token_bytes(id));
  }

  const Tokenizer& tokenizer_;
  const std::vector<std::string>& labels_;  // what targets are, where they are not tokens
  bool next_token_;                         // each target is the token that follows, and not one of its own
  size_t most_;
  bool coloured_;
};

void describe_objective(const Objective& objective, const Config& config, const Tokenizer& tokenizer) {
  const auto row = [](std::string_view name, const std::string& value) {
    console().line(fmt::format("{} {}", console().dim(fmt::format("{:<12}", name)), value));
  };
  const RowShape shape = objective.shape();
  row("objective", std::string(name_of(config.objective.name)));
  row("tokenizer", printable(tokenizer.description()));
  row("row", shape.decoder_length > 0
                 ? fmt::format("{} tokens of the encoder, {} of the decoder", shape.length, shape.decoder_length)
                 : fmt::format("{} tokens", shape.length));
  // What a run would see on average.
  constexpr uint64_t most_counted = 64;
  std::vector<uint64_t> samples(std::min(most_counted, objective.size().value_or(most_counted)));
  for (size_t i = 0; i < samples.size(); ++i) samples[i] = i;
  Batch batch;
  objective.fill(samples, batch);
  const double rows = double(samples.size());
  row("targets", fmt::format("{:.1f} a row, at most {}; padding {:.2f} % (of the first {} samples)",
                             double(batch.n_targets) / rows, shape.most_targets,
                             100 - 100 * double(batch.n_tokens) / (rows * shape.length), samples.size()));
  for (const SourceStatistics& s : objective.statistics()) {
    if (!is_fine_tuning(config.objective.name)) break;
    row(s.name, fmt::format("{} in {:.0f} rows an epoch; {} cut, {} without a target",
                            counted(int64_t(s.documents), "example"), s.samples_per_epoch, s.cut, s.without_target));
  }
}

}  // namespace

void inspect_samples(const InspectSamples& options) {
  const ResolvedConfig resolved = load_arguments(options.arguments);
  const Config& config = resolved.config;
  check_objective(config, resolved.origins);
  const auto tokenizer = load_tokenizer(config.data.tokenizer);
  const auto objective =
      options.validation ? validation_objective(config, *tokenizer) : training_objective(config, *tokenizer);
  if (!objective)
    throw ConfigError(
        "data inspect: the configuration has no validation data; set data.validation_split or a source's "
        "validation");
  describe_objective(*objective, config, *tokenizer);
  const std::vector<SourceStatistics> sources = objective->statistics();
  const SampleView view(*tokenizer, config.objective, options);
  const uint64_t end = objective->size().value_or(UINT64_MAX);
  if (options.first >= end)
    throw ConfigError("data inspect: --first is {}, but the data has {} samples", options.first, end);
  Batch batch;
  for (uint64_t i = options.first; i < end && i - options.first < options.count; ++i) {
    objective->fill(std::span(&i, 1), batch);
    console().line("");
    console().line(console().bold(fmt::format("sample {} ({}, {} targets)", i,
                                              printable(sources[size_t(batch.source_ids[0])].name),
                                              with_thousands(batch.n_targets))));
    view.show(batch);
  }
}

}  // namespace mixtape
