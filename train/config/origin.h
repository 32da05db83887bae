// Where a setting's value came from.
#pragma once

#include <functional>
#include <map>
#include <string>

namespace mixtape {

struct Origin {
  enum Kind { by_default, preset, file, command_line, derived } kind = by_default;
  std::string source;  // the file's path
  int line = 0;

  // "configs/run.yaml:14", "command line", "default" or "derived".
  std::string text() const;
  friend bool operator==(const Origin&, const Origin&) = default;
};

// By dotted key, leaves only: "optimizer.lr", "data.sources[0].path". A key that is absent has its default.
using Origins = std::map<std::string, Origin, std::less<>>;

}  // namespace mixtape
