// manifest.json: the list of shards that make a prepared directory. It is written last, so a directory that has one is
// complete, and one without it is what an interrupted `mixtape data prepare` left.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "train/data/shard.h"
#include "train/data/token_source.h"

namespace mixtape {

inline constexpr char manifest_name[] = "manifest.json";

struct ManifestFile {
  std::string name;  // in the manifest's directory
  ShardInfo shard;
};

struct Manifest {
  std::string tokenizer;              // its file in the directory, or "bytes"
  std::string tokenizer_description;  // for people
  std::vector<ManifestFile> files;

  ShardInfo total() const;  // counts summed; the tokenizer's fields of the first file
};

void write_manifest(const std::filesystem::path& directory, const Manifest& manifest);
// Throws DataError.
Manifest read_manifest(const std::filesystem::path& directory);

// Opens all shards of a directory and compares each header with the manifest.
std::shared_ptr<const TokenSource> open_manifest(const std::filesystem::path& directory);

}  // namespace mixtape
