// Token files of other projects. Each opens one file and throws DataError for one that is damaged.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>

#include "train/data/mapped_file.h"
#include "train/data/token_source.h"
#include "train/data/token_type.h"

namespace mixtape {

// Whether the first bytes are those of one of llm.c's token files.
bool looks_like_llmc(const std::filesystem::path& path);

// llm.c (dev/data/data_common.py, its magics 20240520 for 16-bit and 20240801 for 32-bit tokens): 256 int32, of which
// the first three are magic, version and the number of tokens, then tokens. Each document starts with `eos_id`.
std::shared_ptr<const TokenSource> open_llmc(const std::filesystem::path& path, std::optional<int32_t> eos_id);

// nanoGPT (data/*/prepare.py): 16-bit tokens and nothing else. Each document ends with `eos_id`.
std::shared_ptr<const TokenSource> open_nanogpt(const std::filesystem::path& path, std::optional<int32_t> eos_id);

// Megatron-LM (megatron/core/datasets/indexed_dataset.py): PREFIX.idx and PREFIX.bin; `path` is either of them, or the
// prefix.
std::shared_ptr<const TokenSource> open_megatron(const std::filesystem::path& path, std::optional<int32_t> eos_id);

// Throws DataError unless [first, first + count) lies within `total` tokens.
void check_range(const TokenSourceInfo& info, uint64_t first, uint64_t count, uint64_t total);

}  // namespace mixtape
