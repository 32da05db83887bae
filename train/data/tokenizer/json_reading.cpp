#include "train/data/tokenizer/json_reading.h"

#include <unordered_set>
#include <vector>

#include "train/data/tokenizer/tokenizer.h"

namespace mixtape {
namespace {

constexpr size_t deepest = 32;

}  // namespace

nlohmann::json parse_json(std::string_view text, const std::string& source) {
  using Event = nlohmann::json::parse_event_t;
  std::vector<std::unordered_set<std::string>> keys;  // of the open objects
  size_t depth = 0;
  const auto watch = [&](int, Event event, nlohmann::json& parsed) {
    if (event == Event::object_start) keys.emplace_back();
    if (event == Event::object_end) keys.pop_back();
    if (event == Event::object_start || event == Event::array_start) {
      if (++depth > deepest) throw DataError("{}: JSON nested deeper than {} levels", source, deepest);
    }
    if (event == Event::object_end || event == Event::array_end) --depth;
    if (event == Event::key && !keys.back().insert(parsed.get_ref<const std::string&>()).second)
      throw DataError("{}: the key '{}' stands twice in one object", source, parsed.get_ref<const std::string&>());
    return true;
  };
  try {
    return nlohmann::json::parse(text, watch);
  } catch (const nlohmann::json::exception& error) {
    std::string_view what = error.what();
    if (const size_t end = what.find("] "); end != what.npos) what.remove_prefix(end + 2);
    // The message quotes the text that was read last, which may not be UTF-8 and is long: the position is enough.
    if (const size_t quote = what.find("; last read"); quote != what.npos) what = what.substr(0, quote);
    throw DataError("{}: not valid JSON: {}", source, what);
  }
}

JsonAt JsonAt::child(const nlohmann::json& value, std::string path) const {
  JsonAt out(value, source_);
  out.path_ = std::move(path);
  return out;
}

const nlohmann::json& JsonAt::object() const {
  if (!value_->is_object()) fail("is {}, expected an object", value_->type_name());
  return *value_;
}

bool JsonAt::has(const char* key) const {
  const auto found = object().find(key);
  return found != value_->end() && !found->is_null();
}

JsonAt JsonAt::at(const char* key) const {
  const auto found = object().find(key);
  if (found == value_->end()) fail("'{}' is missing", key);
  return child(*found, path_.empty() ? key : path_ + "." + key);
}

JsonAt JsonAt::at(size_t index) const {
  if (index >= size()) fail("has {} elements, expected more than {}", size(), index);
  return child((*value_)[index], fmt::format("{}[{}]", path_, index));
}

size_t JsonAt::size() const {
  if (!value_->is_array()) fail("is {}, expected an array", value_->type_name());
  return value_->size();
}

const std::string& JsonAt::text() const {
  if (!value_->is_string()) fail("is {}, expected a string", value_->type_name());
  return value_->get_ref<const std::string&>();
}

int64_t JsonAt::integer() const {
  if (!value_->is_number_integer()) fail("is {}, expected an integer", value_->type_name());
  if (value_->is_number_unsigned() && value_->get<uint64_t>() > INT64_MAX) fail("is too large");
  return value_->get<int64_t>();
}

int32_t JsonAt::id() const {
  const int64_t id = integer();
  if (id < 0 || id >= most_tokens) fail("is {}, expected a token id from 0 to {}", id, most_tokens - 1);
  return static_cast<int32_t>(id);
}

bool JsonAt::flag(const char* key, bool otherwise) const {
  if (!has(key)) return otherwise;
  const JsonAt flag = at(key);
  if (!flag.value().is_boolean()) flag.fail("is {}, expected true or false", flag.value().type_name());
  return flag.value().get<bool>();
}

void JsonAt::expect_unset(const char* key) const {
  if (!has(key)) return;
  const nlohmann::json& value = at(key).value();
  const bool off = value == false || value == "" || (value.is_number() && value == 0);
  if (!off) at(key).fail("is set; tokenizers with this setting are not supported");
}

}  // namespace mixtape
