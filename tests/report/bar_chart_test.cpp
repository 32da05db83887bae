#include "train/report/bar_chart.h"

#include <gtest/gtest.h>

#include <regex>

namespace mixtape {
namespace {

const BarChart chart{.title = "Bytes <a> parameter",
                     .series = {"weights", "moments"},
                     .bars = {{"gpt2 & fp32", {4, 8}, ""}, {"bf16", {2, 0}, ""}, {"others' rule", {24}, ""}}};

std::vector<double> widths(const std::string& svg, const std::string& colour) {
  std::vector<double> all;
  const std::regex rect("<rect class=\"" + colour + "\" [^>]*width=\"([0-9.]+)\" height=\"17\"");
  for (auto i = std::sregex_iterator(svg.begin(), svg.end(), rect); i != std::sregex_iterator(); ++i)
    all.push_back(std::stod((*i)[1]));
  return all;
}

TEST(BarChart, LengthsAreInProportion) {
  const std::string svg = bar_chart_svg(chart);
  const auto weights = widths(svg, "f0"), moments = widths(svg, "f1"), others = widths(svg, "f7");
  ASSERT_EQ(weights.size(), 2u);
  ASSERT_EQ(moments.size(), 1u);  // nothing is drawn of 0
  ASSERT_EQ(others.size(), 1u);
  EXPECT_NEAR(moments[0], 2 * weights[0], 0.2);
  EXPECT_NEAR(weights[0], 2 * weights[1], 0.2);
  EXPECT_NEAR(others[0], 6 * weights[0], 0.4);
}

TEST(BarChart, TextIsEscapedAndAFileStandsAlone) {
  const std::string file = bar_chart_file(chart);
  EXPECT_NE(file.find("xmlns=\"http://www.w3.org/2000/svg\""), file.npos);
  EXPECT_NE(file.find("<style>"), file.npos);
  EXPECT_NE(file.find("gpt2 &amp; fp32"), file.npos);
  EXPECT_EQ(file.find("<a>"), file.npos);
  EXPECT_EQ(bar_chart_svg(chart).find("<style>"), file.npos);
  for (const char* none : {"nan", "inf"}) EXPECT_EQ(bar_chart_svg({.title = "empty"}).find(none), file.npos);
}

}  // namespace
}  // namespace mixtape
