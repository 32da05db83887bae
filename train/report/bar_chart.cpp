#include "train/report/bar_chart.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "train/report/html.h"
#include "train/report/html_chart.h"

namespace mixtape {
namespace {

constexpr double width = 1000, label_width = 300, note_width = 190, line = 26, thickness = 17, top = 34, bottom = 26;
constexpr int grey = 7;  // of the palette

double total_of(const Bar& bar) { return std::accumulate(bar.parts.begin(), bar.parts.end(), 0.0); }

class BarDrawing {
 public:
  explicit BarDrawing(const BarChart& chart) : chart_(chart) {
    for (const Bar& bar : chart.bars) most_ = std::max(most_, total_of(bar));
  }

  double height() const { return top + line * double(chart_.bars.size()) + bottom; }

  std::string body() {
    legend();
    axis();
    for (size_t i = 0; i < chart_.bars.size(); ++i) draw(chart_.bars[i], top + line * double(i));
    return std::move(svg_);
  }

 private:
  double length(double value) const { return value / most_ * (width - label_width - note_width); }

  void text(double x, double y, const char* anchor, const std::string& text, const char* kind = "") {
    svg_ += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\"{}>{}</text>", x, y, anchor, kind,
                        html_escape(text));
  }

  void legend() {
    double x = label_width;
    for (size_t s = 0; s < chart_.series.size(); ++s) {
      svg_ += fmt::format("<rect class=\"f{}\" x=\"{:.1f}\" y=\"6\" width=\"12\" height=\"12\"/>", s, x);
      text(x + 17, 16, "start", chart_.series[s]);
      x += 34 + 7.2 * double(chart_.series[s].size());
    }
  }

  void axis() {
    for (const double tick : round_ticks(0, most_, 6)) {
      const double x = label_width + length(tick), end = height() - bottom;
      svg_ += fmt::format("<line class=\"grid\" x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"{1:.1f}\" y2=\"{2:.1f}\"/>", x,
                          top - 4, end);
      text(x, end + 16, "middle", fmt::format("{:g}", tick), " class=\"tick\"");
    }
  }

  void draw(const Bar& bar, double y) {
    text(label_width - 10, y + 13, "end", bar.label);
    double x = label_width;
    for (size_t p = 0; p < bar.parts.size(); ++p) {
      const double w = length(bar.parts[p]);
      const bool single = bar.parts.size() == 1 && chart_.series.size() > 1;
      const std::string name = single ? bar.label : chart_.series[p];
      if (w > 0)
        svg_ += fmt::format(
            "<rect class=\"f{}\" x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.0f}\"><title>{}: "
            "{:.2f}</title></rect>",
            single ? grey : int(p), x, y, w, thickness, html_escape(name), bar.parts[p]);
      x += w;
    }
    text(x + 8, y + 13, "start", fmt::format("{:.4g}{}{}", total_of(bar), bar.note.empty() ? "" : "  ", bar.note));
  }

  const BarChart& chart_;
  double most_ = 1e-9;
  std::string svg_;
};

std::string svg_of(const BarChart& chart, const std::string& attributes, const std::string& before) {
  BarDrawing drawing(chart);
  return fmt::format("<svg{} viewBox=\"0 0 {:.0f} {:.0f}\" role=\"img\" aria-label=\"{}\">{}{}</svg>", attributes,
                     width, drawing.height(), html_escape(chart.title), before, drawing.body());
}

}  // namespace

std::string bar_chart_svg(const BarChart& chart) { return svg_of(chart, "", ""); }

std::string bar_chart_file(const BarChart& chart) {
  static constexpr const char* style = R"(<style>
svg { background: #fff; } text { font: 12px system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; fill: #1b2230; }
.tick { fill: #667085; } .grid { stroke: #e3e6eb; } .f0 { fill: #2f6bdb; } .f1 { fill: #d9730d; } .f2 { fill: #0b8f6b; }
.f3 { fill: #8b4fd9; } .f4 { fill: #cc3d64; } .f5 { fill: #118fb0; } .f6 { fill: #8a7413; } .f7 { fill: #98a1b0; }
@media (prefers-color-scheme: dark) { svg { background: #181e28; } text { fill: #e6eaf1; } .tick { fill: #93a0b4; }
.grid { stroke: #2a3240; } }
</style>)";
  return svg_of(chart, " xmlns=\"http://www.w3.org/2000/svg\"", style) + "\n";
}

}  // namespace mixtape
