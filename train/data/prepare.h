// Text files to a directory of token shards.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "train/data/text_reader.h"

namespace mixtape {

class Tokenizer;

struct PrepareOptions {
  std::vector<std::string> inputs;  // files, directories, patterns
  TextOptions text;
  std::filesystem::path output;
  bool append_eos = true;                     // close each document with the end-of-sequence token
  double validation_split = 0;                // > 0: OUTPUT/train and OUTPUT/validation
  uint64_t shard_tokens = uint64_t(1) << 26;  // a shard is closed after the document that reaches it
  int workers = 0;                            // 0 = one per processor
  bool overwrite = false;                     // replace what is prepared in OUTPUT
};

struct PrepareProgress {
  uint64_t bytes_read = 0, bytes_total = 0;  // of the files as they are on disk
  uint64_t text_bytes = 0, tokens = 0, documents = 0;
};

struct PrepareResult {
  PrepareProgress totals;
  TextCounters text;
  uint64_t shards = 0;
  uint64_t validation_documents = 0;
  int most_in_flight = 0;  // pieces of work that existed at a time: what bounds memory
};

// Reads, tokenizes in parallel and writes in order: the shards do not depend on the number of workers. Literals of
// special tokens in the text stay text. OUTPUT gets its manifest last. Throws DataError.
PrepareResult prepare(const Tokenizer& tokenizer, const PrepareOptions& options,
                      const std::function<void(const PrepareProgress&)>& progress = {});

}  // namespace mixtape
