#include "train/report/html.h"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>

#include "core/base/error.h"
#include "tests/report/temporary.h"
#include "train/report/html_chart.h"

namespace mixtape {
namespace {

size_t count(const std::string& text, const std::string& part) {
  size_t n = 0;
  for (size_t at = 0; (at = text.find(part, at)) != text.npos; at += part.size()) ++n;
  return n;
}

std::string steps(int from, int to) {
  std::string lines;
  for (int i = from; i <= to; ++i)
    lines += json_line(StepMetrics{.step = i,
                                   .attempt = i,
                                   .tokens = 100 * i,
                                   .loss = 10.0 / i,
                                   .grad_norm = 1,
                                   .lr = 1e-3,
                                   .tokens_per_second = 1000,
                                   .step_seconds = 0.1}) +
             "\n";
  return lines;
}

TEST(HtmlEscape, LeavesNothingThatHtmlReads) {
  EXPECT_EQ(html_escape("<a href=\"x\">&'"), "&lt;a href=&quot;x&quot;&gt;&amp;&#39;");
  EXPECT_EQ(html_escape("a\nb\tc"), "a\nb\tc");
  EXPECT_EQ(html_escape(std::string("\0\x1b\xc3(", 4)), "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD(");
  EXPECT_EQ(html_escape("\xed\xa0\x80"), "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD");  // a surrogate is no character
}

TEST(ReadRun, ALineThatIsLoggedAgainReplacesWhatFollowed) {
  const TemporaryFolder folder;
  write(folder / "r/metrics.jsonl", steps(1, 10) + steps(6, 7));
  const RunData run = read_run(folder / "r");
  EXPECT_EQ(run.loss.step, (std::vector<double>{1, 2, 3, 4, 5, 6, 7}));
  EXPECT_EQ(run.last_step, 7);
  EXPECT_EQ(run.status, "killed");
  EXPECT_EQ(run.name, "r");
}

TEST(ReadRun, EachSourceOfAMixtureHasACurve) {
  const TemporaryFolder folder;
  write(folder / "r/metrics.jsonl",
        json_line(EvalMetrics{.step = 1, .loss = 3, .sources = {{"web", 2}, {"a<b", 4}}}) + "\n" +
            json_line(EvalMetrics{.step = 2, .loss = 2, .sources = {{"web", 1}, {"a<b", 3}}}) + "\n" +
            R"({"event":"eval","step":3,"loss":1,"sources":{"web":{},"c":"x"}})" + "\n");
  const RunData run = read_run(folder / "r");
  ASSERT_EQ(run.source_losses.size(), 3u);
  EXPECT_EQ(run.source_losses[0].first, "web");
  EXPECT_EQ(run.source_losses[1].second.value, (std::vector<double>{4, 3}));
  EXPECT_TRUE(std::isnan(run.source_losses[0].second.value[2]));
  const std::string page = html_report({run});
  EXPECT_NE(page.find("web, validation"), std::string::npos);
  EXPECT_NE(page.find("a&lt;b, validation"), std::string::npos);
}

TEST(ReadRun, TornAndHostileLinesAreCountedNotBelieved) {
  const TemporaryFolder folder;
  write(folder / "r/metrics.jsonl", steps(1, 3) + "[]\n" + std::string(100000, '[') + "\n" +
                                        R"({"event":"step","step":"x","loss":{}})"
                                        "\n"
                                        R"({"event":"step","step":1e300,"loss":1})"
                                        "\n"
                                        R"({"event":"start","memory":[],"name":7,"parameters":-1e99})"
                                        "\n"
                                        R"({"event":5})"
                                        "\n"
                                        R"({"event":"step","st)");
  const RunData run = read_run(folder / "r");
  EXPECT_EQ(run.unreadable_lines, 3);
  EXPECT_NO_THROW(html_report({run}));
}

TEST(ReadRun, ADirectoryThatIsNoRunIsAnError) {
  const TemporaryFolder folder;
  EXPECT_THROW(read_run(folder.path()), ConfigError);
  EXPECT_THROW(read_run(folder / "missing"), ConfigError);
}

TEST(ReadRun, AliasesThatDoubleAreBounded) {
  const TemporaryFolder folder;
  std::string yaml = "a0: &a0 {x: 1, y: 2}\n";
  for (int i = 1; i < 30; ++i) yaml += fmt::format("a{0}: &a{0} {{l: *a{1}, r: *a{1}}}\n", i, i - 1);
  write(folder / "r/config.resolved.yaml", yaml);
  EXPECT_LE(read_run(folder / "r").config.size(), 5100u);
}

TEST(ReadRun, DifferencesOfConfigurations) {
  RunData a, b;
  a.config = {{"lr", "1"}, {"same", "x"}, {"only_a", "y"}};
  b.config = {{"lr", "2"}, {"same", "x"}};
  const auto differences = config_differences({a, b});
  ASSERT_EQ(differences.size(), 2u);
  EXPECT_EQ(differences[0], (std::pair<std::string, std::vector<std::string>>{"lr", {"1", "2"}}));
  EXPECT_EQ(differences[1].second, (std::vector<std::string>{"y", ""}));
}

TEST(HtmlReport, IsSelfContainedAndEscapesEverythingOfTheRun) {
  const TemporaryFolder folder;
  const std::string evil = "<script>alert('x')</script>\"";
  write(folder / "r/metrics.jsonl",
        json_line(StartEvent{.name = evil,
                             .command = evil,
                             .device = evil,
                             .precision = evil,
                             .max_steps = 9,
                             .memory = {1, 2, 3, 4, 5}}) +
            "\n" + steps(1, 9) + json_line(SampleEvent{.step = 9, .prompt = evil, .text = evil}) + "\n" +
            json_line(WarningEvent{.text = evil}) + "\n" +
            json_line(StepMetrics{.step = 9, .attempt = 10, .loss = NAN, .skipped = true, .sources = {{evil, 1, 1}}}) +
            "\n" + json_line(CheckpointEvent{.step = 9, .path = evil}) + "\n" +
            json_line(StopEvent{.step = 9, .reason = evil}) + "\n");
  write(folder / "r/config.resolved.yaml", "run: {name: \"" + std::string("<script>") + "\"}\n");
  write(folder / "r/env.json", "{\"<script>\": \"<script>\"}");
  const std::string page =
      html_report({read_run(folder / "r"), read_run(folder / "r")}) + html_report({read_run(folder / "r")});
  EXPECT_EQ(count(page, "<script"), 0u);
  EXPECT_EQ(count(page, "alert('"), 0u);
  EXPECT_EQ(count(page, "http://") + count(page, "https://") + count(page, "url(") + count(page, "@import"), 0u);
  EXPECT_EQ(count(page, "<svg"), count(page, "</svg>"));
  EXPECT_EQ(count(page, "<table"), count(page, "</table>"));
  EXPECT_EQ(count(page, "<div"), count(page, "</div>"));
  EXPECT_GE(count(page, "&lt;script&gt;"), 12u);
}

// 8 + 4 + 5 + 2 + 1 bytes of 2 parameters.
TEST(HtmlReport, DrawsBytesAParameterBesideOthers) {
  const TemporaryFolder folder;
  write(folder / "r/metrics.jsonl",
        json_line(StartEvent{.name = "mine", .parameters = 2, .memory = {8, 4, 5, 2, 1}}) + "\n" + steps(1, 2));
  const std::string page = html_report({read_run(folder / "r")});
  EXPECT_NE(page.find("<title>optimizer: 2.50</title>"), std::string::npos);
  EXPECT_NE(page.find(">10</text>"), std::string::npos);
  EXPECT_NE(page.find("Megatron"), std::string::npos);
}

TEST(HtmlReport, ARunWithoutStepsIsAPageToo) {
  const TemporaryFolder folder;
  write(folder / "r/metrics.jsonl", "");
  const std::string page = html_report({read_run(folder / "r")});
  EXPECT_NE(page.find("No step has been logged yet"), std::string::npos);
  EXPECT_EQ(page.find("nan"), std::string::npos);
}

TEST(HtmlReport, IsWrittenIntoTheOnlyRun) {
  const TemporaryFolder folder;
  write(folder / "r/metrics.jsonl", steps(1, 3));
  EXPECT_EQ(write_html_report({folder / "r"}), folder / "r/report.html");
  EXPECT_NE(read(folder / "r/report.html").find("</html>"), std::string::npos);
  EXPECT_EQ(write_html_report({folder / "r"}, folder / "x.html"), folder / "x.html");
}

TEST(Chart, RoundTicks) {
  EXPECT_EQ(round_ticks(0, 10, 5), (std::vector<double>{0, 2, 4, 6, 8, 10}));
  EXPECT_EQ(round_ticks(-1, 1, 4), (std::vector<double>{-1, -0.5, 0, 0.5, 1}));
  EXPECT_EQ(log_ticks(1, 100), (std::vector<double>{1, 2, 5, 10, 20, 50, 100}));
}

TEST(Chart, ThinningKeepsEverySpikeAndGap) {
  Series series;
  for (int i = 0; i < 10000; ++i)
    series.step.push_back(i), series.value.push_back(i == 4321 ? 50 : i == 777 ? -9 : 1 + 1e-3 * (i % 7));
  for (int i = 5000; i < 6000; ++i) series.value[size_t(i)] = NAN;
  const Series few = thinned(series, 100);
  EXPECT_LE(few.step.size(), 202u);
  EXPECT_EQ(*std::max_element(few.value.begin(), few.value.begin() + 90), 50);
  EXPECT_EQ(*std::min_element(few.value.begin(), few.value.begin() + 90), -9);
  EXPECT_GE(std::count_if(few.value.begin(), few.value.end(), [](double v) { return std::isnan(v); }), 9);
  EXPECT_TRUE(std::is_sorted(few.step.begin(), few.step.end()));
}

TEST(Chart, SmoothingKeepsConstantsAndPassesOverWhatIsNotFinite) {
  Series series;
  for (int i = 0; i < 500; ++i) series.step.push_back(i), series.value.push_back(i == 100 ? NAN : 2.5);
  const Series smooth = smoothed(series);
  for (size_t i = 0; i < smooth.value.size(); ++i) {
    if (i == 100)
      EXPECT_TRUE(std::isnan(smooth.value[i]));
    else
      EXPECT_NEAR(smooth.value[i], 2.5, 1e-12);
  }
}

std::vector<std::string> y_ticks(const std::string& svg) {
  static const std::regex tick("text-anchor=\"end\" x=\"50\"[^>]*>([^<]*)<");
  std::vector<std::string> texts;
  for (auto at = std::sregex_iterator(svg.begin(), svg.end(), tick); at != std::sregex_iterator(); ++at)
    texts.push_back((*at)[1]);
  return texts;
}

TEST(Chart, TicksAreToldApart) {
  for (const ChartUnit unit : {ChartUnit::plain, ChartUnit::count, ChartUnit::percent})
    for (const bool log : {false, true})
      for (double high = 1e-4; high < 1e6; high *= 1.7) {
        const Series series{{0, 10}, {0.3 * high, high}};
        const auto ticks =
            y_ticks(chart_svg({.lines = {{"a", 0, &series}}, .unit = unit, .log = log, .from_zero = !log}));
        EXPECT_EQ(std::set(ticks.begin(), ticks.end()).size(), ticks.size()) << high << " " << ticks.back();
      }
  const Series rate{{0, 10}, {1e-4, 1.5e-3}}, norm{{0, 10}, {0.4, 12}};
  EXPECT_EQ(y_ticks(chart_svg({.lines = {{"a", 0, &rate}}, .from_zero = true})),
            (std::vector<std::string>{"0", "0.2e-3", "0.4e-3", "0.6e-3", "0.8e-3", "1.0e-3", "1.2e-3", "1.4e-3"}));
  EXPECT_EQ(y_ticks(chart_svg({.lines = {{"a", 0, &norm}}, .log = true})),
            (std::vector<std::string>{"0.5", "1", "2", "5", "10"}));
}

TEST(Chart, OneConstantPointDraws) {
  Series series{{5}, {0}};
  const std::string svg = chart_svg({.title = "<t>", .lines = {{"a", 0, &series}}});
  EXPECT_EQ(svg.find("nan"), std::string::npos);
  EXPECT_EQ(svg.find("inf"), std::string::npos);
  EXPECT_NE(svg.find("&lt;t&gt;"), std::string::npos);
  series.value[0] = NAN;
  EXPECT_EQ(chart_svg({.lines = {{"a", 0, &series}}}).find("<svg"), std::string::npos);
}

}  // namespace
}  // namespace mixtape
