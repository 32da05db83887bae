#include "train/report/html.h"

#include <fmt/format.h>

#include <ctime>

#include "core/base/error.h"
#include "core/base/utf8.h"
#include "train/report/console.h"
#include "train/report/html_sections.h"
#include "train/report/html_style.h"
#include "train/report/machine.h"
#include "train/report/run_directory.h"

namespace mixtape {

std::string html_escape(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const char32_t c = take_character(text);
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        append_utf8(out, is_control(c) ? replacement_character : c);
    }
  }
  return out;
}

std::string html_report(const Runs& runs) {
  const std::string title = runs.size() == 1 ? runs.front().name : fmt::format("{} runs", runs.size());
  // The policy forbids every request and script, whatever a run's files hold.
  std::string page = fmt::format(
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
      "<title>{} - Mixtape</title>\n<style>{}</style></head>\n<body><main>\n",
      html_escape(title), html_style);
  for (const auto section : {html_heading, html_key_figures, html_charts, html_differences, html_memory, html_sources,
                             html_samples, html_events, html_reproduction})
    page += section(runs);
  page += fmt::format("<footer>Written by Mixtape {} on {}.</footer>\n</main></body></html>\n", version(),
                      utc_text(double(std::time(nullptr))));
  return page;
}

std::filesystem::path write_html_report(const std::vector<std::filesystem::path>& paths, std::filesystem::path output) {
  if (paths.empty()) throw ConfigError("report: no run given; give the directory of a run, for example runs/NAME");
  Runs runs;
  for (const auto& path : paths) runs.push_back(read_run(path));
  if (output.empty()) output = paths.size() == 1 ? paths.front() / "report.html" : "report.html";
  write_file_atomically(output, html_report(runs));
  return output;
}

}  // namespace mixtape
