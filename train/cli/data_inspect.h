// mixtape data inspect CONFIG: samples as the model sees them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace mixtape {

struct InspectSamples {
  std::vector<std::string> arguments;  // configuration files and overrides
  uint64_t first = 0, count = 3;
  int tokens = 200;  // most of a document or a row
  bool validation = false;
};
void inspect_samples(const InspectSamples& options);

}  // namespace mixtape
