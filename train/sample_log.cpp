#include "train/sample_log.h"

#include <cstdlib>

#include "core/base/error.h"

namespace mixtape {

SampleLog::SampleLog(int rank) {
  const char* const name = std::getenv(sample_log_variable);
  if (!name) return;
  const std::string path = fmt::format("{}.{}", name, rank);
  file_.open(path, std::ios::app);
  if (!file_) throw DataError("{}: cannot write {}", sample_log_variable, path);
}

void SampleLog::add(int64_t step, const GlobalBatch& batch) {
  if (!file_.is_open()) return;
  uint64_t number = batch.first_micro_batch;
  for (const Batch& micro : batch.micro_batches) {
    file_ << fmt::format("{} {} {}\n", step, number, fmt::join(micro.sample_ids, " "));
    number += uint64_t(batch.stride);
  }
  file_.flush();  // of a process that is killed, too
}

}  // namespace mixtape
