// The step line, the bar's drawing and the progress of everything that is not training.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/base/clock.h"
#include "train/report/console.h"
#include "train/report/units.h"

namespace mixtape {
namespace {

std::string amount(Unit unit, double value) {
  return unit == Unit::bytes ? human_bytes(value) : with_thousands(std::llround(value));
}

std::string_view noun(Unit unit) {
  switch (unit) {
    case Unit::bytes:
    case Unit::items:
      return "";
    case Unit::tokens:
      return " tokens";
    case Unit::steps:
      return " steps";
  }
  return "";
}

std::string rate(Unit unit, double per_second) {
  switch (unit) {
    case Unit::bytes:
      return human_bytes(per_second) + "/s";
    case Unit::tokens:
      return human_rate(per_second) + " tok/s";
    case Unit::items:
    case Unit::steps:
      return human_rate(per_second) + "/s";
  }
  return "";
}

}  // namespace

std::string meter(const Console& console, double share, int cells) {
  const int halves = int(std::lround(std::clamp(share, 0.0, 1.0) * 2 * cells));
  const bool half = halves % 2 == 1;
  const auto repeated = [](std::string_view cell, int times) {
    std::string text;
    for (int i = 0; i < times; ++i) text += cell;
    return text;
  };
  const auto [full, tip, rest] = console.unicode() ? std::tuple{"━", "╸", "─"} : std::tuple{"=", ">", "-"};
  return console.accent(repeated(full, halves / 2) + (half ? tip : "")) +
         console.dim(repeated(rest, cells - halves / 2 - half));
}

std::string step_line(const Console& console, const StepMetrics& m, int64_t max_steps, double eta_seconds,
                      int width_limit) {
  const std::string last = with_thousands(max_steps), step = with_thousands(m.step);
  std::string line =
      console.dim("step ") +
      (max_steps > 0 ? fmt::format("{:>{}}", step, last.size()) + console.dim("/" + last) : fmt::format("{:>9}", step));
  const auto column = [&](std::string_view label, const std::string& value, size_t width, std::string_view unit = "") {
    const std::string pad(value.size() < width ? width - value.size() : 0, ' ');
    std::string text = "  ";
    if (!label.empty()) text += console.dim(label) + " ";
    text += pad + value;
    if (!unit.empty()) text += console.dim(fmt::format(" {}", unit));
    const bool fits = width_limit == 0 || display_width(line) + display_width(text) < width_limit;
    if (fits) line += text;
    return fits;
  };
  column("loss", human_loss(m.loss), 7) && column("grad_norm", fmt::format("{:.3f}", m.grad_norm), 6) &&
      column("lr", fmt::format("{:.2e}", m.lr), 8) && column("", human_rate(m.tokens_per_second), 7, "tok/s") &&
      column("", human_bytes(double(m.memory_bytes)), 8) && column("wait", human_percent(m.data_wait_share), 5) &&
      (m.loss_scale == 1 || column("scale", human_count(m.loss_scale), 5)) &&
      (eta_seconds < 0 || column("eta", human_duration(eta_seconds), 7));
  return line;
}

Progress::Progress(std::string label, int64_t total, Unit unit, Console& out)
    : label_(std::move(label)),
      total_(total),
      unit_(unit),
      console_(out),
      started_(Clock::now()),
      last_line_(started_) {
  show(true);
}

Progress::~Progress() {
  if (!finished_) console_.bar("", true);
}

void Progress::advance(int64_t amount) {
  const std::lock_guard guard(mutex_);
  done_ += amount;
  show(false);
}

void Progress::set(int64_t done) {
  const std::lock_guard guard(mutex_);
  done_ = done;
  show(false);
}

void Progress::note(std::string text) {
  const std::lock_guard guard(mutex_);
  note_ = std::move(text);
}

void Progress::show(bool now) {
  using namespace std::chrono_literals;
  const auto time = Clock::now();
  // Callers may advance by single items: most calls must cost no more than this comparison.
  if (!now && time - last_line_ < (console_.terminal() ? Clock::duration(100ms) : Clock::duration(10s))) return;
  if (now && !console_.terminal()) return;
  last_line_ = time;
  const double seconds = seconds_since(started_);
  if (console_.terminal())
    console_.bar(bar_text(seconds), true);
  else
    console_.line(plain_text(seconds));
}

std::string Progress::speed_text(double seconds) const {
  // The first moments say nothing about the rate.
  if (seconds < 0.3 || done_ <= 0) return "";
  const double per_second = double(done_) / seconds;
  std::string text = "  " + rate(unit_, per_second);
  if (total_ > 0)
    text += "  " + console_.dim("eta ") + human_duration(double(std::max<int64_t>(total_ - done_, 0)) / per_second);
  return text;
}

std::string Progress::bar_text(double seconds) const {
  const std::string note = note_.empty() ? "" : "  " + note_;
  if (total_ <= 0)
    return fmt::format("{}  {}{}{}{}", label_, amount(unit_, double(done_)), noun(unit_), speed_text(seconds), note);
  const double share = double(done_) / double(total_);
  const std::string total = amount(unit_, double(total_));
  const std::string rest = fmt::format(" {:>3.0f} %  {:>{}}{}{}{}", 100 * std::clamp(share, 0.0, 1.0),
                                       amount(unit_, double(done_)), unit_ == Unit::bytes ? 8 : total.size(),
                                       console_.dim(fmt::format("/{}", total)), noun(unit_), speed_text(seconds));
  // Where space is short the note goes first, then the meter.
  const int room = console_.width() - 3 - display_width(label_) - display_width(rest),
            with_note = room - display_width(note);
  if (room < 8) return fmt::format("{} {}", label_, rest);
  return fmt::format("{}  {}{}{}", label_, meter(console_, share, std::min(with_note >= 8 ? with_note : room, 32)),
                     rest, with_note >= 8 ? note : "");
}

std::string Progress::plain_text(double seconds) const {
  std::string text = fmt::format("{}  {}", label_, amount(unit_, double(done_)));
  if (total_ > 0)
    text += fmt::format("/{}{} ({:.0f} %)", amount(unit_, double(total_)), noun(unit_),
                        100.0 * double(done_) / double(total_));
  else
    text += noun(unit_);
  return text + speed_text(seconds) + (note_.empty() ? "" : "  " + note_);
}

void Progress::finish(std::string_view more) {
  const std::lock_guard guard(mutex_);
  if (finished_) return;
  finished_ = true;
  console_.bar("", true);
  const double seconds = seconds_since(started_);
  std::string line =
      fmt::format("{}  {}{} in {}", label_, amount(unit_, double(done_)), noun(unit_), human_duration(seconds));
  if (seconds >= 0.3 && done_ > 0) line += fmt::format(" ({})", rate(unit_, double(done_) / seconds));
  if (!more.empty()) line += fmt::format("  {}", more);
  console_.line(line);
}

}  // namespace mixtape
