// Fuzzes every reader of token files: the first byte chooses the format, the rest is the file (for Megatron the .idx,
// beside a small .bin). Whatever the bytes, opening either throws DataError or gives a source all of whose documents
// can be read. A shard's header checksum is made right first, so that the checks behind it are reached.
#include <unistd.h>
#include <xxhash.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "core/base/error.h"
#include "train/data/foreign_formats.h"
#include "train/data/shard.h"

namespace {

namespace fs = std::filesystem;

const fs::path& directory() {
  static const fs::path path = [] {
    const fs::path made = fs::temp_directory_path() / ("mixtape-shard-fuzz-" + std::to_string(::getpid()));
    fs::create_directories(made);
    std::ofstream(made / "a.bin", std::ios::binary).write("\1\0\2\0\3\0\4\0\5\0", 10);
    return made;
  }();
  return path;
}

void write(const fs::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary).write(bytes.data(), std::streamsize(bytes.size()));
}

std::shared_ptr<const mixtape::TokenSource> open(uint8_t choice, std::string bytes) {
  switch (choice % 4) {
    case 0: {
      if (bytes.size() >= mixtape::shard_header_bytes) {
        const uint64_t checksum = XXH3_64bits(bytes.data(), 120);
        std::memcpy(bytes.data() + 120, &checksum, sizeof checksum);
      }
      write(directory() / "a.tokens", bytes);
      return mixtape::open_shard(directory() / "a.tokens");
    }
    case 1:
      write(directory() / "llmc.bin", bytes);
      return mixtape::open_llmc(directory() / "llmc.bin", 0);
    case 2:
      write(directory() / "nano.bin", bytes);
      return mixtape::open_nanogpt(directory() / "nano.bin", 0);
    default:
      write(directory() / "a.idx", bytes);
      return mixtape::open_megatron(directory() / "a.idx", 5);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  try {
    const auto source = open(data[0], std::string(reinterpret_cast<const char*>(data) + 1, size - 1));
    std::vector<int32_t> tokens;
    for (uint64_t d = 0; d < source->num_documents(); ++d) {
      const mixtape::DocumentSpan span = source->document(d);
      tokens.resize(span.length);
      source->read(span.first, tokens);
    }
    source->verify();
  } catch (const mixtape::DataError&) {
  }
  return 0;
}
