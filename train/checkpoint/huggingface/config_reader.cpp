#include "train/checkpoint/huggingface/config_reader.h"

namespace mixtape::huggingface {
namespace {

std::string shown(const Json& value) {
  const std::string text = value.dump(-1, ' ', true, Json::error_handler_t::replace);
  return text.size() > 60 ? text.substr(0, 60) + "..." : text;
}

constexpr int64_t largest = 1 << 30;

bool is_within(const Json& value, int64_t least, int64_t most) {
  if (!value.is_number_integer()) return false;
  if (value.is_number_unsigned() && value.get<uint64_t>() > uint64_t(most)) return false;
  return value.get<int64_t>() >= least && value.get<int64_t>() <= most;
}

}  // namespace

const Json* ConfigReader::find(Keys keys) const {
  for (const char* key : keys)
    if (const auto found = object_.find(key); found != object_.end() && !found->is_null()) return &*found;
  return nullptr;
}

const Json& ConfigReader::get(Keys keys) const {
  if (const Json* found = find(keys)) return *found;
  fail(*keys.begin(), "the key is missing");
}

int64_t ConfigReader::size(Keys keys) const {
  const Json& value = get(keys);
  if (!is_within(value, 1, largest)) fail(*keys.begin(), "{}, expected a whole number from 1 to 2^30", shown(value));
  return value.get<int64_t>();
}

std::optional<int64_t> ConfigReader::id(const char* key) const {
  const Json* value = find({key});
  if (value && value->is_array() && !value->empty()) value = &value->front();
  if (!value) return {};
  if (!is_within(*value, INT64_MIN, largest)) fail(key, "{}, expected a token id", shown(*value));
  const int64_t id = value->get<int64_t>();
  return id < 0 ? std::nullopt : std::optional(id);
}

double ConfigReader::number(const char* key, double if_absent) const {
  const Json* value = find({key});
  if (value && !value->is_number()) fail(key, "{}, expected a number", shown(*value));
  return value ? value->get<double>() : if_absent;
}

bool ConfigReader::flag(const char* key, bool if_absent) const {
  const Json* value = find({key});
  if (value && !value->is_boolean()) fail(key, "{}, expected true or false", shown(*value));
  return value ? value->get<bool>() : if_absent;
}

std::string ConfigReader::text(Keys keys, const std::string& if_absent) const {
  const Json* value = find(keys);
  if (value && !value->is_string()) fail(*keys.begin(), "{}, expected a text", shown(*value));
  return value ? value->get<std::string>() : if_absent;
}

std::vector<std::string> ConfigReader::texts(const char* key) const {
  const Json* value = find({key});
  std::vector<std::string> texts;
  if (!value) return texts;
  if (!value->is_array()) fail(key, "{}, expected a list of texts", shown(*value));
  for (const Json& item : *value) {
    if (!item.is_string()) fail(key, "{} in a list of texts", shown(item));
    texts.push_back(item.get<std::string>());
  }
  return texts;
}

ConfigReader ConfigReader::object(const char* key) const { return {get({key}), what_ + ": " + key}; }

void ConfigReader::only(const char* key, bool value) const {
  if (flag(key, value) != value) fail(key, "{} is not supported", !value);
}

}  // namespace mixtape::huggingface
