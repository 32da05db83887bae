#include "train/bench/profile.h"

#include <nlohmann/json.hpp>

namespace mixtape {

void Profile::begin(std::string_view operation, bool backward) {
  const int64_t outer = open_.empty() ? -1 : open_.back();
  backend_.begin_range(std::string(operation) + (backward ? " backward" : ""));
  open_.push_back(int64_t(events_.size()));
  events_.push_back({.key = {std::string(operation), backward}, .first = backend_.mark(), .inside_of = outer});
}

void Profile::end(std::string_view, bool) {
  events_[size_t(open_.back())].last = backend_.mark();
  backend_.end_range();
  open_.pop_back();
}

void Profile::clear() {
  events_.clear();
  open_.clear();
  backend_.forget_marks();
}

std::map<Profile::Key, Profile::Row> Profile::rows() const {
  std::map<Key, Row> rows;
  for (const Event& e : events_) {
    const double seconds = seconds_of(e);
    ++rows[e.key].calls;
    rows[e.key].seconds += seconds;
    if (e.inside_of >= 0) rows[events_[size_t(e.inside_of)].key].seconds -= seconds;
  }
  return rows;
}

double Profile::total_seconds() const {
  double sum = 0;
  for (const Event& e : events_)
    if (e.inside_of < 0) sum += seconds_of(e);
  return sum;
}

std::string Profile::trace_json() const {
  nlohmann::json list = nlohmann::json::array();
  for (const Event& e : events_)
    list.push_back({{"name", e.key.first},
                    {"cat", e.key.second ? "backward" : "forward"},
                    {"ph", "X"},
                    {"pid", 1},
                    {"tid", 1},
                    {"ts", backend_.seconds_between(events_.front().first, e.first) * 1e6},
                    {"dur", seconds_of(e) * 1e6}});
  return nlohmann::json{{"traceEvents", list}, {"displayTimeUnit", "ms"}}.dump();
}

}  // namespace mixtape
