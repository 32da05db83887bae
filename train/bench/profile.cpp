#include "train/bench/profile.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/base/clock.h"

namespace mixtape {

void Profile::begin(std::string_view operation, bool backward) {
  backend_.synchronize();
  backend_.begin_range(std::string(operation) + (backward ? " backward" : ""));
  open_.push_back({{std::string(operation), backward}, now_seconds(), 0});
}

void Profile::end(std::string_view, bool) {
  backend_.synchronize();
  backend_.end_range();
  const Open done = std::move(open_.back());
  open_.pop_back();
  const double seconds = now_seconds() - done.start;
  if (!open_.empty()) open_.back().inside += seconds;
  Row& row = rows_[done.key];
  ++row.calls;
  row.seconds += seconds - done.inside;
  events_.push_back({done.key, done.start, seconds});
}

void Profile::clear() {
  rows_.clear();
  open_.clear();
  events_.clear();
}

double Profile::total_seconds() const {
  double sum = 0;
  for (const auto& [key, row] : rows_) sum += row.seconds;
  return sum;
}

std::string Profile::trace_json() const {
  double first = events_.empty() ? 0 : events_.front().start;
  for (const Event& e : events_) first = std::min(first, e.start);
  nlohmann::json list = nlohmann::json::array();
  for (const Event& e : events_)
    list.push_back({{"name", e.key.first},
                    {"cat", e.key.second ? "backward" : "forward"},
                    {"ph", "X"},
                    {"pid", 1},
                    {"tid", 1},
                    {"ts", (e.start - first) * 1e6},
                    {"dur", e.seconds * 1e6}});
  return nlohmann::json{{"traceEvents", list}, {"displayTimeUnit", "ms"}}.dump();
}

}  // namespace mixtape
