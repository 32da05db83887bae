#include "train/report/html_sections.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <ctime>

#include "train/report/bar_chart.h"
#include "train/report/html.h"
#include "train/report/html_chart.h"
#include "train/report/published_memory.h"
#include "train/report/run_directory.h"
#include "train/report/units.h"

namespace mixtape {
namespace {

std::string card(std::string_view label, const std::string& value, const std::string& note) {
  return fmt::format(
      "<div class=\"card\"><div class=\"label\">{}</div><div class=\"value\">{}</div><div "
      "class=\"note\">{}</div></div>\n",
      label, html_escape(value), html_escape(note));
}

std::string swatch(const Runs& runs, size_t run) {
  return runs.size() > 1 ? fmt::format("<span class=\"swatch\" style=\"background:var(--c{})\"></span>", run % 8) : "";
}

std::string name_cell(const Runs& runs, size_t run) {
  return fmt::format("<td class=\"word\">{}{}</td>", swatch(runs, run), html_escape(runs[run].name));
}

// The figures of a run that cards and the comparison share.
struct Figures {
  double loss = NAN, best_validation = NAN, best_step = 0, speed = NAN, wait = NAN, peak_memory = NAN;
};

double median(std::vector<double> values) {
  std::erase_if(values, [](double v) { return !std::isfinite(v); });
  if (values.empty()) return NAN;
  const auto middle = values.begin() + std::ptrdiff_t(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

Figures figures(const RunData& run) {
  Figures f;
  const Series loss = smoothed(run.loss);
  for (const double value : loss.value)
    if (std::isfinite(value)) f.loss = value;
  for (size_t i = 0; i < run.validation_loss.step.size(); ++i)
    if (const double value = run.validation_loss.value[i]; std::isfinite(value) && !(value >= f.best_validation))
      f.best_validation = value, f.best_step = run.validation_loss.step[i];
  f.speed = median(run.tokens_per_second.value);
  f.wait = median(run.data_wait_share.value);
  for (const double value : run.memory_bytes.value) f.peak_memory = std::fmax(f.peak_memory, value);
  return f;
}

std::string or_dash(double value, std::string (*text)(double)) { return std::isfinite(value) ? text(value) : "-"; }

const char* status_class(const std::string& status) {
  return status == "finished" || status == "running" ? "good"
         : status == "stopped: signal"               ? ""
         : status == "no steps yet"                  ? ""
                                                     : "bad";
}

std::string joined(const std::vector<std::string>& parts) {
  std::string text;
  for (const std::string& part : parts)
    if (!part.empty()) text += (text.empty() ? "" : " · ") + part;
  return text;
}

}  // namespace

std::string utc_text(double seconds_since_1970) {
  if (!(seconds_since_1970 > 0 && seconds_since_1970 < 1e11)) return "";
  const std::time_t time = std::time_t(seconds_since_1970);
  std::tm broken_down{};
  ::gmtime_r(&time, &broken_down);
  char text[40];
  std::strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S UTC", &broken_down);
  return text;
}

std::string html_heading(const Runs& runs) {
  if (runs.size() > 1)
    return fmt::format("<div class=\"head\"><h1>{} runs beside each other</h1></div>\n", runs.size());
  const RunData& run = runs.front();
  const StartEvent& s = run.start;
  const std::string sub = joined({s.parameters > 0 ? human_count(double(s.parameters)) + " parameters" : "",
                                  s.precision, s.device, s.threads > 1 ? fmt::format("{} threads", s.threads) : "",
                                  s.world_size > 1 ? fmt::format("{} processes", s.world_size) : "",
                                  run.first_time > 0 ? "started " + utc_text(run.first_time) : ""});
  std::string html =
      fmt::format("<div class=\"head\"><h1>{}</h1><span class=\"pill {}\">{}</span></div>\n<p class=\"sub\">{}</p>\n",
                  html_escape(run.name), status_class(run.status), html_escape(run.status), html_escape(sub));
  if (run.unreadable_lines > 0)
    html += fmt::format("<p class=\"sub\">{} line{} of metrics.jsonl could not be read and {} left out.</p>\n",
                        run.unreadable_lines, run.unreadable_lines == 1 ? "" : "s",
                        run.unreadable_lines == 1 ? "is" : "are");
  return html;
}

static std::string cards(const RunData& run) {
  const Figures f = figures(run);
  const StartEvent& s = run.start;
  const double last_loss = run.loss.value.empty() ? NAN : run.loss.value.back();
  std::string html = "<div class=\"cards\">\n";
  html += card("Training loss", or_dash(f.loss, human_loss), "smoothed; last step " + or_dash(last_loss, human_loss));
  if (std::isfinite(f.best_validation))
    html += card("Validation loss", human_loss(f.best_validation),
                 fmt::format("perplexity {:.2f}, best at step {}", std::exp(f.best_validation),
                             with_thousands(int64_t(f.best_step))));
  html += card("Steps", with_thousands(run.last_step),
               joined({s.max_steps > 0 ? "of " + with_thousands(s.max_steps) : "",
                       run.skipped_steps > 0 ? fmt::format("{} skipped", run.skipped_steps) : ""}));
  html +=
      card("Tokens", human_count(double(run.last_tokens)),
           s.parameters > 0 ? fmt::format("{:.2g} a parameter", double(run.last_tokens) / double(s.parameters)) : "");
  html += card("Speed", or_dash(f.speed, human_rate),
               "tokens/s, median" + (std::isfinite(f.wait) ? "; " + human_percent(f.wait) + " waiting" : ""));
  html +=
      card("Time in steps", human_duration(run.training_seconds),
           run.last_time > run.first_time ? human_duration(run.last_time - run.first_time) + " from first to last line"
                                          : "");
  const double planned = double(s.memory.total());
  html += card("Peak memory",
               or_dash(std::isfinite(f.peak_memory) ? f.peak_memory
                       : planned > 0                ? planned
                                                    : NAN,
                       human_bytes),
               planned > 0 ? "planned " + human_bytes(planned) : "");
  return html + "</div>\n";
}

std::string html_key_figures(const Runs& runs) {
  if (runs.size() == 1) return cards(runs.front());
  std::string html =
      "<h2>Key figures</h2><div class=\"card\"><table><tr><th>run</th><th>status</th><th "
      "class=\"n\">parameters</th><th class=\"n\">steps</th>"
      "<th class=\"n\">tokens</th><th class=\"n\">training loss</th><th class=\"n\">best validation</th><th "
      "class=\"n\">tokens/s</th>"
      "<th class=\"n\">time in steps</th><th class=\"n\">peak memory</th></tr>\n";
  for (size_t i = 0; i < runs.size(); ++i) {
    const RunData& run = runs[i];
    const Figures f = figures(run);
    html += fmt::format("<tr>{}<td>{}</td>", name_cell(runs, i), html_escape(run.status));
    for (const std::string& cell :
         {run.start.parameters > 0 ? human_count(double(run.start.parameters)) : "-", with_thousands(run.last_step),
          human_count(double(run.last_tokens)), or_dash(f.loss, human_loss), or_dash(f.best_validation, human_loss),
          or_dash(f.speed, human_rate), human_duration(run.training_seconds), or_dash(f.peak_memory, human_bytes)})
      html += fmt::format("<td class=\"n\">{}</td>", html_escape(cell));
    html += "</tr>\n";
  }
  return html + "</table></div>\n";
}

using Categories = std::vector<std::pair<const char*, int64_t>>;

static Categories categories(const MemoryTable& m) {
  return {{"parameters", m.parameters},   {"gradients", m.gradients}, {"optimizer", m.optimizer},
          {"activations", m.activations}, {"workspace", m.workspace}, {"total", m.total()}};
}

// Bytes a parameter, a bar for each run, and what others take for the states.
static std::string memory_bars(const Runs& runs) {
  BarChart chart{.title = "Bytes a parameter",
                 .series = {"parameters", "gradients", "optimizer", "activations", "workspace"}};
  for (const RunData& run : runs) {
    if (run.start.parameters <= 0 || run.start.memory.total() <= 0) continue;
    Bar bar{.label = run.name};
    for (const auto& [name, bytes] : categories(run.start.memory))
      if (bar.parts.size() < chart.series.size()) bar.parts.push_back(double(bytes) / double(run.start.parameters));
    chart.bars.push_back(std::move(bar));
  }
  if (chart.bars.empty()) return "";
  for (const PublishedMemory& p : published_memory()) chart.bars.push_back({p.name, {p.bytes}, ""});
  return "<p>Bytes a parameter, with those that others report for the states:</p>" + bar_chart_svg(chart);
}

// One run: bytes, share and a bar. Several: a column a run.
std::string html_memory(const Runs& runs) {
  if (std::all_of(runs.begin(), runs.end(), [](const RunData& run) { return run.start.memory.total() <= 0; }))
    return "";
  std::string html = "<h2>Memory, as planned</h2><div class=\"card\"><table><tr><th>category</th>";
  if (runs.size() == 1)
    html += "<th class=\"n\">bytes</th><th class=\"n\">share</th><th></th>";
  else
    for (size_t i = 0; i < runs.size(); ++i)
      html += fmt::format("<th class=\"n\">{}{}</th>", swatch(runs, i), html_escape(runs[i].name));
  html += "</tr>\n";
  const Categories first = categories(runs.front().start.memory);
  for (size_t row = 0; row < first.size(); ++row) {
    html += fmt::format("<tr><td>{}</td>", first[row].first);
    for (const RunData& run : runs)
      html += fmt::format("<td class=\"n\">{}</td>", human_bytes(double(categories(run.start.memory)[row].second)));
    if (runs.size() == 1) {
      const double share = double(first[row].second) / double(first.back().second);
      html += fmt::format(
          "<td class=\"n\">{}</td><td style=\"width:50%\"><div class=\"meter\" style=\"width:{:.1f}%\"></div></td>",
          human_percent(share), 100 * std::clamp(share, 0.0, 1.0));
    }
    html += "</tr>\n";
  }
  return html + "</table>" + memory_bars(runs) + "</div>\n";
}

std::string html_sources(const Runs& runs) {
  std::string rows;
  for (size_t i = 0; i < runs.size(); ++i)
    for (const SourceShare& source : runs[i].sources)
      rows += fmt::format("<tr>{}<td class=\"word\">{}</td><td class=\"n\">{}</td><td class=\"n\">{:.2f}</td></tr>\n",
                          runs.size() > 1 ? name_cell(runs, i) : "", html_escape(source.name),
                          or_dash(source.share, human_percent), source.epochs);
  if (rows.empty()) return "";
  return fmt::format(
      "<h2>Data</h2><div class=\"card\"><table><tr>{}<th>source</th><th class=\"n\">share of the tokens</th><th "
      "class=\"n\">passes</th></tr>\n"
      "{}</table></div>\n",
      runs.size() > 1 ? "<th>run</th>" : "", rows);
}

std::string html_differences(const Runs& runs) {
  if (runs.size() < 2) return "";
  const auto differences = config_differences(runs);
  std::string html = "<h2>What differs in the configuration</h2><div class=\"card\">";
  if (differences.empty()) return html + "<p class=\"sub\" style=\"margin:0\">Nothing.</p></div>\n";
  html += "<table><tr><th>key</th>";
  for (size_t i = 0; i < runs.size(); ++i)
    html += fmt::format("<th>{}{}</th>", swatch(runs, i), html_escape(runs[i].name));
  html += "</tr>\n";
  for (const auto& [key, values] : differences) {
    html += fmt::format("<tr><td class=\"word\"><code>{}</code></td>", html_escape(key));
    for (const std::string& value : values)
      html += fmt::format("<td class=\"word\">{}</td>", value.empty() ? "-" : html_escape(value));
    html += "</tr>\n";
  }
  return html + "</table></div>\n";
}

// The last sample is open, up to twelve earlier ones (evenly spread over the run) are behind a click.
static std::string samples_of(const Runs& runs, size_t index) {
  const auto& samples = runs[index].samples;
  const auto sample = [](const SampleEvent& s) {
    return fmt::format("<h3>step {}</h3><div class=\"sample\"><b>{}</b>{}</div>\n", with_thousands(s.step),
                       html_escape(s.prompt), html_escape(s.text));
  };
  std::string html = "<div class=\"card\">";
  if (runs.size() > 1)
    html += fmt::format("<p class=\"sub\" style=\"margin:0 0 8px\">{}{}</p>", swatch(runs, index),
                        html_escape(runs[index].name));
  html += sample(samples.back());
  const size_t earlier = samples.size() - 1, shown = std::min<size_t>(earlier, 12);
  if (shown > 0) {
    html += fmt::format("<details><summary>{} earlier</summary>",
                        shown == earlier ? fmt::format("{}", earlier) : fmt::format("{} of {}", shown, earlier));
    for (size_t i = shown; i-- > 0;) html += sample(samples[i * earlier / shown]);
    html += "</details>";
  }
  return html + "</div>\n";
}

std::string html_samples(const Runs& runs) {
  std::string html;
  for (size_t i = 0; i < runs.size(); ++i)
    if (!runs[i].samples.empty()) html += samples_of(runs, i);
  return html.empty()
             ? ""
             : fmt::format("<h2>Generated text</h2><div class=\"{}\">{}</div>\n", runs.size() > 1 ? "two" : "", html);
}

std::string html_events(const Runs& runs) {
  constexpr size_t most = 400;
  std::string rows;
  for (size_t i = 0; i < runs.size(); ++i) {
    const auto& events = runs[i].events;
    const size_t first = events.size() > most ? events.size() - most : 0;
    if (first > 0)
      rows += fmt::format("<tr><td colspan=\"5\">{} earlier events are left out</td></tr>\n",
                          with_thousands(int64_t(first)));
    for (size_t k = first; k < events.size(); ++k) {
      const RunEvent& e = events[k];
      const bool bad = e.kind == "skip" || e.kind == "warning" || e.text.starts_with("not saved");
      rows += fmt::format(
          "<tr>{}<td class=\"n\">{}</td><td><span class=\"kind {}\">{}</span></td><td class=\"word\">{}</td><td "
          "class=\"n\">{}</td></tr>\n",
          runs.size() > 1 ? name_cell(runs, i) : "", with_thousands(e.step),
          bad                  ? "warning"
          : e.kind == "resume" ? "resume"
                               : "",
          html_escape(e.kind), html_escape(e.text), utc_text(e.time));
    }
  }
  if (rows.empty()) return "";
  return fmt::format(
      "<h2>Events</h2><div class=\"card scroll\"><table><tr>{}<th class=\"n\">step</th><th>event</th><th></th><th "
      "class=\"n\">time</th></tr>\n"
      "{}</table></div>\n",
      runs.size() > 1 ? "<th>run</th>" : "", rows);
}

static std::string reproduction_of(const Runs& runs, size_t index) {
  const RunData& run = runs[index];
  std::string commit, version, directory, rows;
  for (const auto& [key, value] : run.environment) {
    if (key == "git_commit") commit = value;
    if (key == "mixtape") version = value;
    if (key == "directory") directory = value;
    rows += fmt::format("<tr><td class=\"word\">{}</td><td class=\"word\">{}</td></tr>\n", html_escape(key),
                        html_escape(value));
  }
  std::string lines;
  if (!version.empty()) lines += "# mixtape " + version + "\n";
  if (!commit.empty()) lines += "# in a directory under git at commit " + commit + "\n";
  if (!directory.empty()) lines += shell_command({"cd", directory}) + "\n";
  if (!run.start.command.empty()) lines += "# this was typed:\n#   " + run.start.command + "\n";
  lines += shell_command(
               {"mixtape", "train", (run.path / "config.resolved.yaml").string(), "run.name=" + run.name + "-again"}) +
           "\n";
  std::string html = "<div class=\"card\">";
  if (runs.size() > 1)
    html +=
        fmt::format("<p class=\"sub\" style=\"margin:0 0 8px\">{}{}</p>", swatch(runs, index), html_escape(run.name));
  html += fmt::format("<pre>{}</pre>", html_escape(lines));
  if (!run.config_yaml.empty())
    html +=
        fmt::format("<details><summary>Configuration</summary><pre>{}</pre></details>", html_escape(run.config_yaml));
  if (!rows.empty())
    html += fmt::format("<details><summary>Machine and libraries</summary><table>{}</table></details>", rows);
  return html + "</div>\n";
}

std::string html_reproduction(const Runs& runs) {
  std::string html;
  for (size_t i = 0; i < runs.size(); ++i) html += reproduction_of(runs, i);
  return fmt::format("<h2>How to reproduce</h2><div class=\"{}\">{}</div>\n", runs.size() > 1 ? "two" : "", html);
}

}  // namespace mixtape
