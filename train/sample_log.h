// Which samples each step was made of, for whoever wants to be sure that none is repeated or left out: where the
// environment names a file, every process appends to its own, FILE.RANK, a line for each micro-batch of a step once it
// is done:
//
//   17 3 136 137     step 17, its micro-batch 3, samples 136 and 137
#pragma once

#include <cstdint>
#include <fstream>

#include "train/objective/batch.h"

namespace mixtape {

inline constexpr const char* sample_log_variable = "MIXTAPE_SAMPLE_LOG";

class SampleLog {
 public:
  // Throws DataError where the file cannot be written to.
  explicit SampleLog(int rank);
  void add(int64_t step, const GlobalBatch& batch);

 private:
  std::ofstream file_;
};

}  // namespace mixtape
