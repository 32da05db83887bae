// What the tests of the data layer share: a directory that goes away, files, and sources in memory.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "core/base/error.h"
#include "train/data/token_source.h"

namespace mixtape::test {

namespace fs = std::filesystem;

class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    static std::atomic<int> count = 0;
    path_ = fs::temp_directory_path() / ("mixtape-data-" + std::to_string(::getpid()) + "-" + std::to_string(count++));
    fs::create_directories(path_);
  }
  ~TemporaryDirectory() { fs::remove_all(path_); }
  fs::path operator/(const std::string& name) const { return path_ / name; }
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

inline void write_bytes(const fs::path& path, std::string_view bytes) {
  fs::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary).write(bytes.data(), std::streamsize(bytes.size()));
}

inline std::string read_bytes(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream out;
  out << in.rdbuf();
  return out.str();
}

inline std::string golden_tokenizer(const std::string& name) { return MIXTAPE_GOLDEN "/tokenizers/" + name; }

inline std::string sayings() { return MIXTAPE_SOURCE "/tests/data/fixtures/sayings"; }

// Documents held in memory, without closing tokens.
class MemorySource final : public TokenSource {
 public:
  explicit MemorySource(std::vector<std::vector<int32_t>> documents) : documents_(std::move(documents)) {
    info_.path = "memory";
    for (const auto& document : documents_) {
      firsts_.push_back(stream_.size());
      stream_.insert(stream_.end(), document.begin(), document.end());
    }
  }
  const TokenSourceInfo& info() const override { return info_; }
  uint64_t num_tokens() const override { return stream_.size(); }
  uint64_t num_documents() const override { return documents_.size(); }
  DocumentSpan document(uint64_t d) const override { return {firsts_.at(d), documents_.at(d).size()}; }
  void read(uint64_t first, std::span<int32_t> out) const override {
    for (size_t i = 0; i < out.size(); ++i) out[i] = stream_.at(first + i);
  }

 private:
  TokenSourceInfo info_;
  std::vector<std::vector<int32_t>> documents_;
  std::vector<uint64_t> firsts_;
  std::vector<int32_t> stream_;
};

// The documents of a source as vectors.
inline std::vector<std::vector<int32_t>> documents_of(const TokenSource& source) {
  std::vector<std::vector<int32_t>> documents;
  for (uint64_t d = 0; d < source.num_documents(); ++d) {
    const DocumentSpan span = source.document(d);
    documents.emplace_back(span.length);
    source.read(span.first, documents.back());
  }
  return documents;
}

// The message of the DataError or other Error that `f` throws; empty if it throws none.
template <class F>
std::string error_of(F f) {
  try {
    f();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

}  // namespace mixtape::test
