// Series and ticks for charts.
#include <algorithm>
#include <cmath>
#include <limits>

#include "train/report/html_chart.h"

namespace mixtape {
namespace {

// An exponential average in one direction, with the weights of what is there normalised to one.
template <class Iterator>
void average(Iterator begin, Iterator end, double alpha) {
  double sum = 0, weight = 0;
  for (Iterator value = begin; value != end; ++value) {
    if (!std::isfinite(*value)) continue;
    sum = (1 - alpha) * sum + alpha * *value;
    weight = (1 - alpha) * weight + alpha;
    *value = sum / weight;
  }
}

}  // namespace

std::vector<double> round_ticks(double low, double high, int count) {
  const double rough = (high - low) / std::max(count, 1), power = std::pow(10, std::floor(std::log10(rough)));
  const double lead = rough / power, step = power * (lead <= 1.5 ? 1 : lead <= 3.5 ? 2 : lead <= 7.5 ? 5 : 10);
  std::vector<double> ticks;
  if (!(step > 0) || !std::isfinite(step)) return ticks;
  const double slack = 1e-9 * (high - low);
  for (double i = std::ceil((low - slack) / step); i * step <= high + slack && ticks.size() < 100; ++i)
    ticks.push_back(i == 0 ? 0 : i * step);  // no -0
  return ticks;
}

std::vector<double> log_ticks(double low, double high) {
  const bool sparse = high / low > 1e3;
  std::vector<double> ticks;
  for (double power = std::pow(10, std::floor(std::log10(low))); power <= high && ticks.size() < 100; power *= 10)
    for (const double lead : {1.0, 2.0, 5.0})
      if ((lead == 1 || !sparse) && lead * power >= low * (1 - 1e-9) && lead * power <= high * (1 + 1e-9))
        ticks.push_back(lead * power);
  // Inside one decade the round numbers of a linear scale say more.
  return ticks.size() < 4 && !sparse ? round_ticks(low, high, 5) : ticks;
}

Series smoothed(const Series& series) {
  const size_t n = series.step.size();
  if (n < 60) return series;
  Series out = series;
  const double window = std::max(5.0, double(n) / 80), alpha = 2 / (window + 1);
  average(out.value.begin(), out.value.end(), alpha);
  average(out.value.rbegin(), out.value.rend(), alpha);
  return out;
}

Series thinned(const Series& series, int buckets) {
  const size_t n = series.step.size();
  if (n <= 2 * size_t(buckets)) return series;
  const double first = series.step.front(), width = (series.step.back() - first) / buckets;
  Series out;
  const auto keep = [&](size_t i) {
    out.step.push_back(series.step[i]);
    out.value.push_back(series.value[i]);
  };
  for (size_t begin = 0, end; begin < n; begin = end) {
    const double limit = first + width * (std::floor((series.step[begin] - first) / width) + 1);
    for (end = begin + 1; end < n && series.step[end] < limit;) ++end;
    size_t least = n, greatest = n;
    for (size_t i = begin; i < end; ++i) {
      if (!std::isfinite(series.value[i])) continue;
      if (least == n || series.value[i] < series.value[least]) least = i;
      if (greatest == n || series.value[i] > series.value[greatest]) greatest = i;
    }
    if (least == n) {
      keep(begin);
    } else {
      keep(std::min(least, greatest));
      if (least != greatest) keep(std::max(least, greatest));
    }
  }
  return out;
}

}  // namespace mixtape
