#include "train/report/reporter.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/base/clock.h"
#include "core/base/utf8.h"
#include "train/report/console.h"
#include "train/report/units.h"

namespace mixtape {
namespace {

// What the model wrote, on one line and not too long for one.
std::string excerpt(const std::string& text, size_t most) {
  const std::string clean = printable(text);
  if (clean.size() <= most) return clean;
  return clean.substr(0, character_start(clean, most)) + "...";
}

// Markdown shows text as it is inside an indented block.
std::string markdown_block(const std::string& text) {
  std::string block = "    ";
  for (const char c : text) block += c == '\n' ? std::string("\n    ") : std::string(1, c);
  return block;
}

}  // namespace

Reporter::Reporter(const RunDirectory& run, ReporterOptions options, ResumePoint from, Console& out)
    : options_(options), console_(out), metrics_(run.metrics_file(), from), path_(run.path().string()) {
  console_.log_to(run.log_file());
  if (options_.tensorboard) tensorboard_.emplace(run.tensorboard(), from.step);
  recent_.emplace_back(Clock::now(), from.step);
}

Reporter::~Reporter() { console_.bar("", true); }

template <class Event>
void Reporter::write(const Event& event) {
  if (metrics_.write(event)) return;
  if (metrics_.lost_lines() == 1)
    console_.warn("metrics.jsonl cannot be written (is the disk full?); training goes on");
}

void Reporter::start(const StartEvent& e) {
  write(e);
  const auto row = [&](std::string_view label, const std::string& text) {
    console_.line(console_.dim(fmt::format("{:<8}", label)) + text);
  };
  row("run", fmt::format("{}  {}", console_.bold(e.name), console_.dim(path_)));
  row("model", fmt::format("{} parameters{}, {}FLOP a token", with_thousands(e.parameters),
                           e.learning > 0 && e.learning < e.parameters
                               ? fmt::format(", {} of which learn", with_thousands(e.learning))
                               : "",
                           human_count(e.flops_per_token)));
  row("data", fmt::format("{} tokens a step, {} steps, {} tokens in all", with_thousands(e.tokens_per_step),
                          with_thousands(e.max_steps), human_count(double(e.max_tokens))));
  row("device", fmt::format("{}, {}, {} thread{}{}", e.device, e.precision, e.threads, e.threads == 1 ? "" : "s",
                            e.world_size > 1 ? fmt::format(", {} processes", e.world_size) : ""));
  const MemoryTable& m = e.memory;
  row("memory", fmt::format("{}: parameters {}, gradients {}, optimizer {}, activations {}, workspace {}",
                            human_bytes(double(m.total())), human_bytes(double(m.parameters)),
                            human_bytes(double(m.gradients)), human_bytes(double(m.optimizer)),
                            human_bytes(double(m.activations)), human_bytes(double(m.workspace))));
}

void Reporter::step(const StepMetrics& m) {
  write(m);
  if (tensorboard_) {
    const auto scalar = [&](std::string_view tag, double value) { tensorboard_->scalar(tag, m.step, value); };
    if (!m.skipped) {
      scalar("train/loss", m.loss);
      scalar("train/grad_norm", m.grad_norm);
      scalar("train/learning_rate", m.lr);
      scalar("speed/tokens_per_second", m.tokens_per_second);
      scalar("speed/data_wait_share", m.data_wait_share);
      scalar("memory/bytes", double(m.memory_bytes));
    }
    if (m.loss_scale != 1) scalar("train/loss_scale", m.loss_scale);
    for (const SourceShare& source : m.sources) {
      scalar("data/share/" + source.name, source.share);
      scalar("data/epochs/" + source.name, source.epochs);
    }
  }
  if (m.skipped) {
    console_.warn(fmt::format("step {} skipped: loss {}, grad_norm {:.3g}, loss scale {}", with_thousands(m.step + 1),
                              human_loss(m.loss), m.grad_norm, human_count(m.loss_scale)));
    return;
  }
  recent_.emplace_back(Clock::now(), m.step);
  if (recent_.size() > 200) recent_.pop_front();
  const bool last = m.step == options_.max_steps;
  if (options_.interval > 0 && (m.step % options_.interval == 0 || m.step == 1 || last)) {
    const double eta = last ? -1 : eta_seconds();
    console_.line(step_line(console_, m, options_.max_steps, eta, console_.line_width()),
                  step_line(console_, m, options_.max_steps, eta));
    if (tensorboard_) tensorboard_->flush();
  }
  draw(m);
}

void Reporter::draw(const StepMetrics& m) {
  if (!console_.terminal() || options_.max_steps <= 0) return;
  const double share = double(m.step) / double(options_.max_steps), eta = eta_seconds();
  const std::string text = fmt::format(
      " {:>3.0f} %  {}{} steps  {} {}  {} tok/s{}", 100 * share, with_thousands(m.step),
      console_.dim(fmt::format("/{}", with_thousands(options_.max_steps))), console_.dim("loss"), human_loss(m.loss),
      human_rate(m.tokens_per_second), eta < 0 ? "" : "  " + console_.dim("eta ") + human_duration(eta));
  const int room = console_.width() - 1 - display_width(text);
  console_.bar((room >= 8 ? meter(console_, share, std::min(room, 32)) : "") + text);
}

double Reporter::eta_seconds() const {
  const auto& [time, step] = recent_.back();
  const auto& [old_time, old_step] = recent_.front();
  if (options_.max_steps <= 0 || step - old_step < 2) return -1;
  const double seconds_per_step = std::chrono::duration<double>(time - old_time).count() / double(step - old_step);
  return seconds_per_step * double(std::max<int64_t>(options_.max_steps - step, 0));
}

void Reporter::eval(const EvalMetrics& e) {
  write(e);
  if (tensorboard_) {
    tensorboard_->scalar("eval/loss", e.step, e.loss);
    tensorboard_->scalar("eval/perplexity", e.step, e.perplexity);
    if (e.bits_per_byte) tensorboard_->scalar("eval/bits_per_byte", e.step, *e.bits_per_byte);
    for (const Score& score : e.scores) tensorboard_->scalar("eval/" + score.name, e.step, score.value);
    for (const SourceLoss& source : e.sources) tensorboard_->scalar("eval/loss/" + source.name, e.step, source.loss);
    tensorboard_->flush();
  }
  std::string line =
      fmt::format("{} {}  {} {}  {} {:.2f}", console_.dim("eval"), with_thousands(e.step), console_.dim("loss"),
                  console_.bold(human_loss(e.loss)), console_.dim("perplexity"), e.perplexity);
  if (e.bits_per_byte) line += fmt::format("  {} {:.4f}", console_.dim("bits/byte"), *e.bits_per_byte);
  for (const Score& score : e.scores)
    line += fmt::format("  {} {}", console_.dim(score.name), human_percent(score.value));
  for (const SourceLoss& source : e.sources)
    line += fmt::format("  {} {}", console_.dim(printable(source.name)), human_loss(source.loss));
  line += fmt::format(
      "  {}", console_.dim(fmt::format("{} tokens in {}", with_thousands(e.eval_tokens), human_duration(e.seconds))));
  if (e.best) line += "  " + console_.accent("best so far");
  console_.line(line);
}

void Reporter::checkpoint(const CheckpointEvent& e) {
  write(e);
  if (!e.error.empty()) {
    console_.warn(
        fmt::format("checkpoint of step {} not saved: {}; training goes on", with_thousands(e.step), e.error));
    return;
  }
  console_.line(
      fmt::format("{} {}  {}", console_.dim("saved"), e.path,
                  console_.dim(fmt::format("{} in {}", human_bytes(double(e.bytes)), human_duration(e.seconds)))));
}

void Reporter::resume(const ResumeEvent& e) {
  write(e);
  console_.line(fmt::format("{} at step {} from {}", console_.accent("resumed"), with_thousands(e.step), e.path));
}

void Reporter::sample(const SampleEvent& e) {
  write(e);
  if (tensorboard_) {
    tensorboard_->text("samples", e.step, markdown_block(e.prompt + e.text));
    tensorboard_->flush();
  }
  console_.line(fmt::format("{} {}  {}{}", console_.dim("sample"), with_thousands(e.step),
                            console_.dim(excerpt(e.prompt, 120)), excerpt(e.text, 400)));
}

void Reporter::warning(const WarningEvent& e) {
  write(e);
  console_.warn(e.text);
}

void Reporter::stop(const StopEvent& e) {
  write(e);
  if (tensorboard_) tensorboard_->flush();
  console_.bar("", true);
  console_.line(fmt::format("{} at step {} after {}",
                            e.reason == "finished" ? e.reason : fmt::format("stopped ({})", e.reason),
                            with_thousands(e.step), human_duration(e.seconds)));
}

}  // namespace mixtape
