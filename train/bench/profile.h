// Where the time of steps goes, by operation; also as a trace for chrome://tracing and ui.perfetto.dev.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "core/backend.h"
#include "core/tape.h"

namespace mixtape {

class Profile final : public TapeObserver {
 public:
  // Operations are timed between marks in the device's work, by its own clock: it is not waited for before it is asked
  // for results. A profiler of the device sees their names.
  explicit Profile(Backend& backend) : backend_(backend) {}

  void begin(std::string_view operation, bool backward) override;
  void end(std::string_view operation, bool backward) override;

  // The next begin() starts at 0 again and what was recorded is forgotten.
  void clear();

  struct Row {
    int64_t calls = 0;
    double seconds = 0;  // without operations inside of it (a tensor that is made again for backward)
  };
  using Key = std::pair<std::string, bool>;  // name, backward
  std::map<Key, Row> rows() const;
  double total_seconds() const;

  // The trace event format: complete events ("ph": "X"), microseconds.
  std::string trace_json() const;

 private:
  struct Event {
    Key key;
    int64_t first = 0, last = 0;  // marks
    int64_t inside_of = -1;       // another event
  };
  double seconds_of(const Event& e) const { return backend_.seconds_between(e.first, e.last); }

  Backend& backend_;
  std::vector<Event> events_;  // in the order of their beginnings
  std::vector<int64_t> open_;
};

}  // namespace mixtape
