// Line charts over steps as SVG: axes with round ticks, long series thinned to what a screen can show, values on hover.
#pragma once

#include <string>
#include <vector>

#include "train/report/run_data.h"

namespace mixtape {

struct ChartLine {
  std::string label;
  int colour = 0;  // of the page's palette
  const Series* series = nullptr;
  bool points = false;  // few measurements: dots joined by a dashed line, never smoothed
};

struct ChartMark {
  enum class Kind { skip, resume } kind;
  double step;
};

enum class ChartUnit { plain, count, bytes, percent };

struct Chart {
  std::string title, y_label;  // the title is read out by screen readers
  std::vector<ChartLine> lines;
  std::vector<ChartMark> marks;
  ChartUnit unit = ChartUnit::plain;
  bool log = false, from_zero = false, wide = false, smooth = true;
  double from_step = 0;  // what lies before is left out
};

// "<svg>...</svg>", or a paragraph that says so when there is nothing finite to draw.
std::string chart_svg(const Chart&);

// Round numbers (1, 2 or 5 times a power of ten) inside [low, high], about `count` of them; needs low < high.
std::vector<double> round_ticks(double low, double high, int count);
// 1, 2 and 5 times the powers of ten inside [low, high], 0 < low < high; only powers of ten where that gives many.
std::vector<double> log_ticks(double low, double high);

// The series with a moving average (exponential, forward and backward, so that nothing is shifted) in place of its
// values; what is not finite is passed over and stays NaN. Short series are returned as they are.
Series smoothed(const Series&);
// At most about 2 * buckets points that draw the same: the least and the greatest value of each bucket of steps, in
// order. A bucket without a finite value becomes one NaN: a gap.
Series thinned(const Series&, int buckets);

}  // namespace mixtape
