// Typed access to a config.json, with errors that name the file and the key.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/error.h"

namespace mixtape::huggingface {

using Json = nlohmann::ordered_json;

// Keys are lists where a setting has had several names: the first that is there counts. A null counts as absent.
class ConfigReader {
 public:
  using Keys = std::initializer_list<const char*>;

  ConfigReader(Json object, std::string what) : object_(std::move(object)), what_(std::move(what)) {
    if (!object_.is_object()) throw CheckpointError("{}: expected an object", what_);
  }

  bool has(const char* key) const { return find({key}) != nullptr; }
  bool mentions(const char* key) const { return object_.contains(key); }  // also as null
  const Json& at(const char* key) const { return get({key}); }
  const std::string& what() const { return what_; }
  // A size: a whole number from 1 to 2^30, so that products of four fit 64 bits only where shapes are checked.
  int64_t size(Keys keys) const;
  int64_t size(Keys keys, int64_t if_absent) const { return find(keys) ? size(keys) : if_absent; }
  std::optional<int64_t> id(const char* key) const;  // a token id; the first, where there is a list; none if negative
  double number(const char* key, double if_absent) const;
  bool flag(const char* key, bool if_absent) const;
  std::string text(Keys keys, const std::string& if_absent) const;
  std::vector<std::string> texts(const char* key) const;  // empty if absent
  ConfigReader object(const char* key) const;
  // For a setting of which one value is supported: CheckpointError if the file has another.
  void only(const char* key, bool value) const;

  template <class... Args>
  [[noreturn]] void fail(const char* key, fmt::format_string<Args...> format, Args&&... args) const {
    throw CheckpointError("{}: {}: {}", what_, key, fmt::format(format, std::forward<Args>(args)...));
  }

 private:
  const Json* find(Keys keys) const;
  const Json& get(Keys keys) const;

  Json object_;
  std::string what_;
};

}  // namespace mixtape::huggingface
