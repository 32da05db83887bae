#include "train/report/html_chart.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "train/report/html.h"
#include "train/report/units.h"

namespace mixtape {
namespace {

constexpr int palette = 8;

// Digits behind the point that tell ticks apart.
int decimals_of(double spacing) { return std::clamp(int(std::ceil(-std::log10(spacing) - 1e-9)), 0, 6); }

// One of `ticks`, which on a linear axis share their digits and their exponent.
std::string tick_text(const std::vector<double>& ticks, size_t index, ChartUnit unit, bool log) {
  const double value = ticks[index], size = std::fabs(value);
  const double spacing = ticks.size() > 1 ? ticks[1] - ticks[0] : size;
  if (unit == ChartUnit::bytes) return human_bytes(value);
  if (unit == ChartUnit::percent) return fmt::format("{:.{}f} %", 100 * value, decimals_of(100 * spacing));
  if (value == 0) return "0";
  if (size >= (unit == ChartUnit::count ? 1000 : 10000)) {
    const auto [divisor, suffix] = size >= 1e9   ? std::pair(1e9, "B")
                                   : size >= 1e6 ? std::pair(1e6, "M")
                                                 : std::pair(1e3, "k");
    return fmt::format("{:.4g}{}", value / divisor, suffix);
  }
  const double largest = log ? size : std::max(std::fabs(ticks.front()), std::fabs(ticks.back()));
  if (largest < 1e-2) {
    const double power = std::pow(10, std::floor(std::log10(largest) + 1e-9));
    const std::string digits = log ? fmt::format("{:.3g}", value / power)
                                   : fmt::format("{:.{}f}", value / power, decimals_of(spacing / power));
    return fmt::format("{}e{:.0f}", digits, std::log10(power));
  }
  return log ? fmt::format("{:g}", value) : fmt::format("{:.{}f}", value, decimals_of(spacing));
}

std::string value_text(double value, ChartUnit unit) {
  if (!std::isfinite(value)) return "not finite";
  if (unit == ChartUnit::bytes) return human_bytes(value);
  if (unit == ChartUnit::percent) return human_percent(value);
  if (unit == ChartUnit::count) return human_rate(value);
  return std::fabs(value) < 1e-2 && value != 0 ? fmt::format("{:.2e}", value) : fmt::format("{:.4f}", value);
}

std::string step_text(double step) { return step >= 1e6 ? human_count(step) : with_thousands(std::llround(step)); }

class Drawing {
 public:
  explicit Drawing(const Chart& chart)
      : chart_(chart), width_(chart.wide ? 1100 : 540), height_(chart.wide ? 360 : 240) {
    find_ranges();
  }

  bool empty() const { return !(x_low_ < x_high_); }

  std::string svg() {
    svg_ = fmt::format("<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\">", width_, height_,
                       html_escape(chart_.title));
    axes();
    marks();
    for (const ChartLine& line : chart_.lines) draw(line);
    hover();
    return svg_ + "</svg>";
  }

 private:
  static constexpr double left = 58, right = 16, top = 14, bottom = 32;

  bool shows(double step, double value) const {
    return step >= chart_.from_step && std::isfinite(value) && (!chart_.log || value > 0);
  }

  void find_ranges() {
    for (const ChartLine& line : chart_.lines)
      for (size_t i = 0; i < line.series->step.size(); ++i) {
        const double step = line.series->step[i], value = line.series->value[i];
        if (!shows(step, value)) continue;
        x_low_ = std::min(x_low_, step), x_high_ = std::max(x_high_, step);
        y_low_ = std::min(y_low_, value), y_high_ = std::max(y_high_, value);
      }
    if (x_low_ > x_high_) return;  // nothing to draw
    if (x_low_ == x_high_) x_low_ -= 0.5, x_high_ += 0.5;
    if (chart_.from_step == 0 && x_low_ < 0.02 * x_high_) x_low_ = 0;
    if (chart_.from_zero) y_low_ = std::min(0.0, y_low_);
    if (chart_.log) {
      const double pad = std::max(1.02, std::pow(y_high_ / y_low_, 0.05));
      y_low_ /= pad, y_high_ *= pad;
      return;
    }
    if (y_low_ == y_high_) {
      const double pad = y_low_ == 0 ? 1 : 0.1 * std::fabs(y_low_);
      y_low_ -= chart_.from_zero && y_low_ == 0 ? 0 : pad, y_high_ += pad;
    }
    const double pad = 0.05 * (y_high_ - y_low_);
    if (!chart_.from_zero) y_low_ -= pad;
    y_high_ += pad;
  }

  double x(double step) const { return left + (step - x_low_) / (x_high_ - x_low_) * (width_ - left - right); }
  double y(double value) const {
    const double share =
        chart_.log ? std::log(value / y_low_) / std::log(y_high_ / y_low_) : (value - y_low_) / (y_high_ - y_low_);
    return height_ - bottom - share * (height_ - top - bottom);
  }

  void axes() {
    const double base = height_ - bottom;
    const auto ticks = chart_.log ? log_ticks(y_low_, y_high_) : round_ticks(y_low_, y_high_, chart_.wide ? 7 : 5);
    for (size_t i = 0; i < ticks.size(); ++i) {
      svg_ += fmt::format("<line class=\"grid\" x1=\"{}\" x2=\"{}\" y1=\"{:.1f}\" y2=\"{:.1f}\"/>", left,
                          width_ - right, y(ticks[i]), y(ticks[i]));
      svg_ += fmt::format("<text class=\"tick\" text-anchor=\"end\" x=\"{}\" y=\"{:.1f}\">{}</text>", left - 8,
                          y(ticks[i]) + 4, tick_text(ticks, i, chart_.unit, chart_.log));
    }
    svg_ +=
        fmt::format("<line class=\"axis\" x1=\"{}\" x2=\"{}\" y1=\"{}\" y2=\"{}\"/>", left, width_ - right, base, base);
    for (const double tick : round_ticks(x_low_, x_high_, chart_.wide ? 10 : 5)) {
      if (tick != std::floor(tick)) continue;  // there are no half steps
      svg_ += fmt::format("<line class=\"axis\" x1=\"{:.1f}\" x2=\"{:.1f}\" y1=\"{}\" y2=\"{}\"/>", x(tick), x(tick),
                          base, base + 4);
      const bool at_end = x(tick) > width_ - right - 12;
      svg_ += fmt::format("<text class=\"tick\" text-anchor=\"{}\" x=\"{:.1f}\" y=\"{}\">{}</text>",
                          at_end ? "end" : "middle", at_end ? width_ - right : x(tick), base + 18, step_text(tick));
    }
  }

  void marks() {
    const double base = height_ - bottom;
    for (const ChartMark& mark : chart_.marks) {
      if (mark.step < x_low_ || mark.step > x_high_) continue;
      if (mark.kind == ChartMark::Kind::resume)
        svg_ += fmt::format("<line class=\"resume\" x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"{1}\" y2=\"{2}\"/>",
                            x(mark.step), top, base);
      else
        svg_ += fmt::format("<path class=\"skip\" d=\"M{:.1f} {}l-4 -7h8z\"/>", x(mark.step), base);
    }
  }

  // Moves where there is a gap, draws where there is none.
  std::string path(const Series& series) const {
    std::string d;
    bool pen_down = false;
    for (size_t i = 0; i < series.step.size(); ++i) {
      const bool shown = shows(series.step[i], series.value[i]);
      if (shown) d += fmt::format("{}{:.1f} {:.1f}", pen_down ? 'L' : 'M', x(series.step[i]), y(series.value[i]));
      pen_down = shown;
    }
    return d;
  }

  void draw(const ChartLine& line) {
    const int buckets = chart_.wide ? 700 : 320;
    const auto stroke = [&](const char* kind, const Series& series) {
      svg_ += fmt::format("<path class=\"{} c{}\" d=\"{}\"/>", kind, line.colour % palette, path(series));
    };
    if (line.points) {
      const Series few = thinned(*line.series, buckets);
      stroke("dashed", few);
      if (few.step.size() > 60) return;
      for (size_t i = 0; i < few.step.size(); ++i)
        if (shows(few.step[i], few.value[i]))
          svg_ += fmt::format("<circle class=\"f{}\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3\"/>", line.colour % palette,
                              x(few.step[i]), y(few.value[i]));
    } else if (chart_.smooth && line.series->step.size() >= 60) {
      stroke("raw", thinned(*line.series, buckets));
      stroke("line", thinned(smoothed(*line.series), buckets));
    } else {
      stroke("line", thinned(*line.series, buckets));
    }
  }

  // Invisible strips side by side; the one under the pointer shows its step's values (by style sheet alone).
  void hover() {
    const int strips = chart_.wide ? 80 : 40;
    const double strip = (width_ - left - right) / strips;
    for (int i = 0; i < strips; ++i) {
      const double middle = x_low_ + (i + 0.5) / strips * (x_high_ - x_low_);
      std::string rows, dots;
      size_t widest = 12, n = 0;
      double at = middle;
      for (const ChartLine& line : chart_.lines) {
        const size_t index = nearest(*line.series, middle);
        if (index == line.series->step.size()) continue;
        const double step = line.series->step[index], value = line.series->value[index];
        if (std::fabs(x(step) - x(middle)) > (line.points ? 6 : 1) * strip || step < chart_.from_step) continue;
        if (!line.points) at = step;
        const std::string text =
            fmt::format("{}{}", line.label.empty() ? "" : line.label + " ", value_text(value, chart_.unit));
        widest = std::max(widest, text.size());
        if (shows(step, value))
          dots += fmt::format("<circle class=\"f{}\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3.5\"/>", line.colour % palette,
                              x(step), y(value));
        rows +=
            fmt::format("<tspan class=\"f{}\" x=\"@\" dy=\"16\">{}</tspan>", line.colour % palette, html_escape(text));
        ++n;
      }
      if (n == 0) continue;
      const double box = 14 + 6.6 * double(widest),
                   edge = x(middle) > width_ / 2.0 ? x(middle) - box - 8 : x(middle) + 8;
      for (size_t place; (place = rows.find("\"@\"")) != rows.npos;)
        rows.replace(place, 3, fmt::format("\"{:.1f}\"", edge + 8));
      svg_ += fmt::format(
          "<g class=\"h\"><rect x=\"{0:.1f}\" y=\"{1}\" width=\"{2:.2f}\" height=\"{3}\"/><g class=\"t\"><line "
          "x1=\"{4:.1f}\" "
          "x2=\"{4:.1f}\" y1=\"{1}\" y2=\"{5}\"/>{6}<rect x=\"{7:.1f}\" y=\"{8}\" width=\"{9:.0f}\" height=\"{10}\" "
          "rx=\"4\"/><text "
          "x=\"{11:.1f}\" y=\"{12}\">step {13}{14}</text></g></g>",
          left + i * strip, top, strip, height_ - top - bottom, x(middle), height_ - bottom, dots, edge, top + 4, box,
          12 + 16 * (n + 1), edge + 8, top + 20, step_text(at), rows);
    }
  }

  static size_t nearest(const Series& series, double step) {
    const auto after = std::lower_bound(series.step.begin(), series.step.end(), step);
    if (after == series.step.begin()) return 0;
    const size_t index = size_t(after - series.step.begin());
    if (after == series.step.end() || step - series.step[index - 1] < *after - step) return index - 1;
    return index;
  }

  const Chart& chart_;
  const int width_, height_;
  double x_low_ = HUGE_VAL, x_high_ = -HUGE_VAL, y_low_ = HUGE_VAL, y_high_ = -HUGE_VAL;
  std::string svg_;
};

}  // namespace

std::string chart_svg(const Chart& chart) {
  Drawing drawing(chart);
  return drawing.empty() ? "<p class=\"none\">nothing to draw yet</p>" : drawing.svg();
}

}  // namespace mixtape
