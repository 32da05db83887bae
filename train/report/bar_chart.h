// Stacked horizontal bars as SVG: one a line, its label before it and its total behind it.
#pragma once

#include <string>
#include <vector>

namespace mixtape {

struct Bar {
  std::string label;
  std::vector<double> parts;  // one for each series; of others' figures the total alone, drawn in grey
  std::string note;           // behind the total
};

struct BarChart {
  std::string title;                // read out by screen readers
  std::vector<std::string> series;  // at most 7
  std::vector<Bar> bars;
};

// For a page with the report's style sheet.
std::string bar_chart_svg(const BarChart& chart);
// A file of its own, with its colours, light or dark as the viewer's.
std::string bar_chart_file(const BarChart& chart);

}  // namespace mixtape
