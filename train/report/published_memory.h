// What other trainers take for the states of training, to be shown beside one's own figures.
#pragma once

#include <vector>

namespace mixtape {

struct PublishedMemory {
  const char* name;
  double bytes;  // a parameter
  const char* source;
};
const std::vector<PublishedMemory>& published_memory();

}  // namespace mixtape
