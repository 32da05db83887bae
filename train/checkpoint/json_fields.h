// Structs with a field table (core/base/fields.h) to JSON and back, exactly.
//
// Finite doubles are written in the shortest decimal form that reads back as the same bits (nlohmann's), infinities and
// NaN as texts. Reading is strict: each key once, none missing, none unknown, each value of its type and in its range.
// What is optional may be missing: an older version did not write it.
#pragma once

#include <cmath>
#include <nlohmann/json.hpp>
#include <string>
#include <type_traits>
#include <vector>

#include "core/base/error.h"
#include "core/base/fields.h"

namespace mixtape::json_fields {

using Json = nlohmann::ordered_json;

template <class T>
Json encode(const T& value) {
  if constexpr (std::is_same_v<T, double>) {
    if (std::isfinite(value)) return value;
    return std::isnan(value) ? "nan" : value > 0 ? "inf" : "-inf";
  } else if constexpr (std::is_enum_v<T>) {
    return name_of(value);
  } else if constexpr (is_optional_type<T>) {
    return value ? encode(*value) : Json();
  } else if constexpr (is_vector_type<T>) {
    Json list = Json::array();
    for (const auto& item : value) list.push_back(encode(item));
    return list;
  } else if constexpr (HasFields<T>) {
    Json object = Json::object();
    for_each_field<T>([&](const auto& f) { object[std::string(f.name)] = encode(value.*f.member); });
    return object;
  } else {
    return value;
  }
}

[[noreturn]] inline void fail_at(const std::string& key, const Json& found, std::string_view expected) {
  std::string text = found.dump(-1, ' ', true, Json::error_handler_t::replace);
  if (text.size() > 60) text = text.substr(0, 60) + "...";
  throw CheckpointError("{}: {}, expected {}", key, text, expected);
}

inline void expect(bool holds, const std::string& key, const Json& found, std::string_view expected) {
  if (!holds) fail_at(key, found, expected);
}

// `key` is the path for messages ("state.json: loss_scaler.scale").
template <class T>
void decode(const Json& json, T& value, const std::string& key, const Range& range = {}) {
  if constexpr (std::is_same_v<T, bool>) {
    expect(json.is_boolean(), key, json, "true or false");
    value = json.get<bool>();
  } else if constexpr (std::is_same_v<T, uint64_t>) {
    expect(json.is_number_unsigned(), key, json, "a whole number that is not negative");
    value = json.get<uint64_t>();
  } else if constexpr (std::is_integral_v<T>) {
    const bool fits = json.is_number_integer() &&
                      (!json.is_number_unsigned() || json.get<uint64_t>() <= uint64_t(std::numeric_limits<T>::max()));
    expect(fits, key, json, "a whole number");
    value = json.get<T>();
  } else if constexpr (std::is_same_v<T, double>) {
    const bool special = json == "nan" || json == "inf" || json == "-inf";
    expect(json.is_number() || special, key, json, "a number");
    value = !special ? json.get<double>() : json == "nan" ? std::nan("") : json == "inf" ? INFINITY : -INFINITY;
  } else if constexpr (std::is_same_v<T, std::string>) {
    expect(json.is_string(), key, json, "a text");
    value = json.get<std::string>();
  } else if constexpr (std::is_enum_v<T>) {
    const auto parsed = json.is_string() ? parse_enum<T>(json.get<std::string>()) : std::nullopt;
    expect(parsed.has_value(), key, json, "one of the names of this setting");
    value = *parsed;
  } else if constexpr (is_optional_type<T>) {
    if (json.is_null()) return value.reset();
    decode(json, value.emplace(), key, range);
  } else if constexpr (is_vector_type<T>) {
    expect(json.is_array(), key, json, "a list");
    value.clear();
    for (const Json& item : json) decode(item, value.emplace_back(), key, range);
  } else {
    static_assert(HasFields<T>);
    expect(json.is_object(), key, json, "an object");
    size_t known = 0;
    for_each_field<T>([&](const auto& f) {
      const std::string name(f.name), path = key + (key.ends_with(": ") ? "" : ".") + name;
      const auto found = json.find(name);
      if (found == json.end()) {
        if constexpr (is_optional_type<std::remove_cvref_t<decltype(value.*f.member)>>)
          return (value.*f.member).reset();
        throw CheckpointError("{}: the key is missing", path);
      }
      decode(*found, value.*f.member, path, f.range);
      ++known;
    });
    if (json.size() != known)
      throw CheckpointError("{}: {} unknown keys; a newer version may have written it", key, json.size() - known);
  }
  if constexpr (std::is_arithmetic_v<T> && !std::is_same_v<T, bool>)
    if (!range.contains(double(value)) && (range.bounds_below() || range.bounds_above()))
      fail_at(key, json, fmt::format("a value from {} to {}", range.least, range.most));
}

}  // namespace mixtape::json_fields
