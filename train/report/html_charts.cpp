// Which charts a report has.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "train/report/html.h"
#include "train/report/html_chart.h"
#include "train/report/html_sections.h"

namespace mixtape {
namespace {

using SeriesOf = Series RunData::*;

bool has_values(const Series& series) {
  return std::any_of(series.value.begin(), series.value.end(), [](double v) { return std::isfinite(v); });
}

std::vector<ChartLine> lines_of(const Runs& runs, SeriesOf which) {
  std::vector<ChartLine> lines;
  for (size_t i = 0; i < runs.size(); ++i)
    if (has_values(runs[i].*which))
      lines.push_back({runs.size() > 1 ? runs[i].name : "", int(i % 8), &(runs[i].*which), false});
  return lines;
}

std::string legend(const std::vector<ChartLine>& lines) {
  std::string html;
  for (const ChartLine& line : lines)
    if (!line.label.empty())
      html += fmt::format("<span><i class=\"{}\" style=\"border-color:var(--c{})\"></i>{}</span>",
                          line.points ? "dots" : "", line.colour, html_escape(line.label));
  return html.empty() ? "" : "<span class=\"legend\">" + html + "</span>";
}

std::string framed(const Chart& chart, const std::string& body) {
  return fmt::format(
      "<div class=\"card {}\"><div class=\"chart-head\"><h3>{}</h3><span class=\"unit\">{}</span>{}</div>{}</div>\n",
      chart.wide ? "wide" : "", chart.title, chart.y_label, legend(chart.lines), body);
}

std::string simple(const Chart& chart) { return chart.lines.empty() ? "" : framed(chart, chart_svg(chart)); }

// Skips and resumes are marked where one run is shown; with several, nobody could tell whose they are.
std::vector<ChartMark> marks_of(const Runs& runs) {
  std::vector<ChartMark> marks;
  if (runs.size() > 1) return marks;
  for (const RunEvent& event : runs.front().events) {
    if (event.kind == "skip") marks.push_back({ChartMark::Kind::skip, double(event.step)});
    if (event.kind == "resume") marks.push_back({ChartMark::Kind::resume, double(event.step)});
    if (marks.size() == 500) break;
  }
  return marks;
}

// Linear, logarithmic, and the second half alone, where little happens on the scale of the first steps.
std::string loss_chart(const Runs& runs) {
  Chart chart{.title = "Loss", .y_label = "nats a token", .marks = marks_of(runs), .wide = true};
  double last = 0;
  for (size_t i = 0; i < runs.size(); ++i) {
    const bool one = runs.size() == 1;
    if (has_values(runs[i].loss))
      chart.lines.push_back({one ? "training" : runs[i].name, int(i % 8), &runs[i].loss, false});
    if (has_values(runs[i].validation_loss))
      chart.lines.push_back(
          {one ? "validation" : runs[i].name + ", validation", one ? 1 : int(i % 8), &runs[i].validation_loss, true});
    for (size_t s = 0; one && s < runs[i].source_losses.size(); ++s)
      chart.lines.push_back(
          {runs[i].source_losses[s].first + ", validation", int((s + 2) % 8), &runs[i].source_losses[s].second, true});
    last = std::max(last, double(runs[i].last_step));
  }
  if (chart.lines.empty()) return framed(chart, "<p class=\"none\">No step has been logged yet.</p>");
  Chart logarithmic = chart, second_half = chart;
  logarithmic.log = true;
  second_half.from_step = std::floor(last / 2);
  std::string body = "<div class=\"views\">";
  const std::pair<const char*, const Chart*> views[] = {
      {"linear", &chart}, {"logarithmic", &logarithmic}, {"second half", &second_half}};
  for (int i = 0; i < 3; ++i)
    body += fmt::format("<input type=\"radio\" name=\"view\" id=\"v{0}\"{1}><label for=\"v{0}\">{2}</label> ", i,
                        i == 0 ? " checked" : "", views[i].first);
  for (int i = 0; i < 3; ++i)
    body += fmt::format("<div class=\"view view{}\">{}</div>", i, chart_svg(*views[i].second));
  return framed(chart, body + "</div>");
}

// A few spikes would flatten everything else on a linear scale.
bool wants_log(const std::vector<ChartLine>& lines) {
  for (const ChartLine& line : lines) {
    std::vector<double> values;
    for (const double v : line.series->value)
      if (std::isfinite(v) && v > 0) values.push_back(v);
    if (values.empty()) continue;
    std::sort(values.begin(), values.end());
    if (values.back() > 12 * values[values.size() / 2]) return true;
  }
  return false;
}

bool varies(const std::vector<ChartLine>& lines) {
  for (const ChartLine& line : lines)
    for (const double value : line.series->value)
      if (value != line.series->value.front()) return true;
  return false;
}

}  // namespace

std::string html_charts(const Runs& runs) {
  const auto norm = lines_of(runs, &RunData::grad_norm), scale = lines_of(runs, &RunData::loss_scale),
             memory = lines_of(runs, &RunData::memory_bytes);
  const auto marks = marks_of(runs);
  std::string html = "<h2>Training</h2><div class=\"charts\">\n" + loss_chart(runs);
  html += simple({.title = "Learning rate", .lines = lines_of(runs, &RunData::lr), .from_zero = true, .smooth = false});
  html += simple({.title = "Gradient norm",
                  .y_label = "before clipping",
                  .lines = norm,
                  .marks = marks,
                  .log = wants_log(norm),
                  .from_zero = !wants_log(norm)});
  html += simple({.title = "Throughput",
                  .y_label = "tokens a second",
                  .lines = lines_of(runs, &RunData::tokens_per_second),
                  .unit = ChartUnit::count,
                  .from_zero = true});
  html += simple({.title = "Waiting for data",
                  .y_label = "share of the step",
                  .lines = lines_of(runs, &RunData::data_wait_share),
                  .unit = ChartUnit::percent,
                  .from_zero = true});
  if (!scale.empty())
    html += simple({.title = "Loss scale",
                    .lines = scale,
                    .marks = marks,
                    .unit = ChartUnit::count,
                    .log = true,
                    .smooth = false});
  if (varies(memory))
    html += simple({.title = "Memory",
                    .y_label = "peak",
                    .lines = memory,
                    .unit = ChartUnit::bytes,
                    .from_zero = true,
                    .smooth = false});
  return html + "</div>\n";
}

}  // namespace mixtape
