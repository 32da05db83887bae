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
  // `backend` is synchronised around every operation, so that its time is its own; a profiler of the device sees the
  // operation's name.
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
  const std::map<Key, Row>& rows() const { return rows_; }
  double total_seconds() const;

  // The trace event format: complete events ("ph": "X"), microseconds.
  std::string trace_json() const;

 private:
  struct Open {
    Key key;
    double start = 0, inside = 0;
  };
  struct Event {
    Key key;
    double start = 0, seconds = 0;
  };
  Backend& backend_;
  std::map<Key, Row> rows_;
  std::vector<Open> open_;
  std::vector<Event> events_;
};

}  // namespace mixtape
