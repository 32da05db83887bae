// JSON from strangers: bounded depth, no duplicate keys, and errors that say where. For .cpp files only.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>

#include "core/base/error.h"

namespace mixtape {

// Throws DataError for what is not JSON, nests deeper than 32 or gives a key twice.
nlohmann::json parse_json(std::string_view text, const std::string& source);

// A value and its path in the file, such as "model.merges[3]"; the accessors check types and throw DataError.
class JsonAt {
 public:
  JsonAt(const nlohmann::json& value, std::string source) : value_(&value), source_(std::move(source)) {}

  template <class... Args>
  [[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) const {
    const std::string what = fmt::format(format, std::forward<Args>(args)...);
    throw DataError("{}: {}{}{}", source_, path_, path_.empty() ? "" : ": ", what);
  }

  bool is_null() const { return value_->is_null(); }
  bool has(const char* key) const;  // present and not null
  JsonAt at(const char* key) const;
  JsonAt at(size_t index) const;
  size_t size() const;  // of an array
  const nlohmann::json& object() const;
  const nlohmann::json& value() const { return *value_; }
  const std::string& source() const { return source_; }

  const std::string& text() const;
  int32_t id() const;  // a token id: 0 .. 2^24 - 1
  int64_t integer() const;
  bool flag(const char* key, bool otherwise) const;
  std::string type() const { return at("type").text(); }

  // For settings that change ids and that this program does not have.
  void expect_unset(const char* key) const;

 private:
  JsonAt child(const nlohmann::json& value, std::string path) const;

  const nlohmann::json* value_;
  std::string source_;
  std::string path_;
};

}  // namespace mixtape
