#include "train/checkpoint/safetensors_header.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "core/base/error.h"

namespace mixtape::safetensors {
namespace {

using nlohmann::json;

std::optional<StoredType> type_named(std::string_view name) {
  for (int i = 0; i <= int(StoredType::u64); ++i)
    if (name_of(StoredType(i)) == name) return StoredType(i);
  return {};
}

// Names go into messages; one that is long or has control characters would spoil them.
std::string shown(std::string_view name) {
  std::string text;
  for (char c : name.substr(0, 80)) text += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '?' : c;
  return name.size() > 80 ? text + "..." : text;
}

// The header's grammar as a state machine over nlohmann's events. Each event either fits the state or is an error, so
// depth is at most three by construction.
class HeaderReader : public nlohmann::json_sax<json> {
 public:
  HeaderReader(Header& header, const std::string& what) : header_(header), what_(what) {}

  bool start_object(size_t) override {
    if (state_ == State::start) return state_ = State::top, true;
    if (state_ == State::entry_value) return state_ = is_metadata_ ? State::metadata : State::entry, true;
    unexpected("an object");
  }
  bool end_object() override {
    if (state_ == State::entry) finish_entry();
    state_ = state_ == State::top ? State::done : State::top;
    return true;
  }
  bool start_array(size_t) override {
    if (state_ == State::shape || state_ == State::offsets) {
      if (in_array_) unexpected("an array in an array");
      return in_array_ = true;
    }
    unexpected("an array");
  }
  bool end_array() override {
    in_array_ = false;
    state_ = State::entry;
    return true;
  }

  bool key(std::string& text) override {
    switch (state_) {
      case State::top:
        return start_entry(text);
      case State::entry:
        return start_member(text);
      case State::metadata:
        if (header_.metadata.contains(text)) fail("metadata key '{}' occurs twice", shown(text));
        metadata_key_ = text;
        state_ = State::metadata_value;
        return true;
      default:
        unexpected("a key");
    }
  }

  bool string(std::string& text) override {
    if (state_ == State::metadata_value) {
      header_.metadata[metadata_key_] = text;
      return state_ = State::metadata, true;
    }
    if (state_ != State::dtype) unexpected("a text");
    const auto type = type_named(text);
    if (!type) fail("tensor '{}' has the dtype '{}', which the format does not know", shown(name_), shown(text));
    entry_.type = *type;
    return state_ = State::entry, true;
  }
  bool number_unsigned(uint64_t value) override {
    if (!in_array_) unexpected("a number");
    if (value > uint64_t(INT64_MAX)) fail("tensor '{}': {} is too large a number", shown(name_), value);
    if (state_ == State::shape) {
      if (entry_.shape.size() == max_rank) fail("tensor '{}' has more than {} dimensions", shown(name_), max_rank);
      entry_.shape.push_back(int64_t(value));
      return true;
    }
    if (n_offsets_ == 2) fail("tensor '{}' has more than two data_offsets", shown(name_));
    (n_offsets_++ == 0 ? entry_.begin : entry_.end) = value;
    return true;
  }
  bool number_integer(int64_t value) override {
    fail("tensor '{}': {} where a number that is not negative is expected", shown(name_), value);
  }
  bool number_float(double, const std::string& text) override {
    fail("tensor '{}': {} where a whole number is expected", shown(name_), shown(text));
  }
  bool null() override { unexpected("null"); }
  bool boolean(bool) override { unexpected("true or false"); }
  bool binary(json::binary_t&) override { unexpected("binary data"); }

  // Also for text that is not UTF-8, which the parser refuses.
  bool parse_error(size_t position, const std::string&, const json::exception&) override {
    fail("the header is not valid JSON (at its byte {})", position);
  }

 private:
  enum class State { start, top, entry_value, entry, dtype, shape, offsets, metadata, metadata_value, done };

  template <class... Args>
  [[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) {
    throw CheckpointError("{}: {}", what_, fmt::format(format, std::forward<Args>(args)...));
  }
  [[noreturn]] void unexpected(const char* found) {
    if (name_.empty()) fail("the header holds {} where a tensor's description is expected", found);
    fail("'{}' holds {} where dtype, shape and data_offsets are expected", shown(name_), found);
  }

  bool start_entry(const std::string& text) {
    if (!names_.insert(text).second) fail("the name '{}' occurs twice", shown(text));
    name_ = text;
    is_metadata_ = text == "__metadata__";
    entry_ = {text};
    has_dtype_ = has_shape_ = false;
    n_offsets_ = -1;
    state_ = State::entry_value;
    return true;
  }
  bool start_member(const std::string& text) {
    if (text == "dtype" && !has_dtype_) return has_dtype_ = true, state_ = State::dtype, true;
    if (text == "shape" && !has_shape_) return has_shape_ = true, state_ = State::shape, true;
    if (text == "data_offsets" && n_offsets_ < 0) return n_offsets_ = 0, state_ = State::offsets, true;
    fail("tensor '{}' has the key '{}', which is unknown or a repetition", shown(name_), shown(text));
  }
  void finish_entry() {
    if (!has_dtype_ || !has_shape_ || n_offsets_ != 2)
      fail("tensor '{}' lacks dtype, shape or two data_offsets", shown(name_));
    header_.entries.push_back(entry_);
  }

  Header& header_;
  const std::string& what_;
  State state_ = State::start;
  std::set<std::string> names_;
  std::string name_, metadata_key_;
  Entry entry_;
  bool is_metadata_ = false, in_array_ = false, has_dtype_ = false, has_shape_ = false;
  int n_offsets_ = -1;  // -1: the key has not been seen
};

void check_layout(const Header& header, uint64_t data_bytes, const std::string& what) {
  uint64_t position = 0;
  for (const Entry& entry : header.entries) {
    const std::string name = shown(entry.name);
    if (entry.end < entry.begin || entry.end > data_bytes)
      throw CheckpointError("{}: tensor '{}' lies at {}..{}, outside of the {} bytes of data", what, name, entry.begin,
                            entry.end, data_bytes);
    const uint64_t expected = bytes_of(what, entry.name, entry.type, entry.shape);
    if (entry.end - entry.begin != expected)
      throw CheckpointError("{}: tensor '{}' has {} bytes, but {} {} take {}", what, name, entry.end - entry.begin,
                            name_of(entry.type), text_of(entry.shape), expected);
    if (entry.begin != position)
      throw CheckpointError("{}: tensor '{}' begins at {}, but the data before it ends at {} ({})", what, name,
                            entry.begin, position, entry.begin < position ? "tensors overlap" : "a hole");
    position = entry.end;
  }
  if (position != data_bytes)
    throw CheckpointError("{}: {} bytes behind the last tensor belong to none", what, data_bytes - position);
}

}  // namespace

uint64_t bytes_of(const std::string& what, std::string_view name, StoredType type, const Extents& shape) {
  int64_t bytes = size_of(type);
  for (int64_t extent : shape)
    if (extent < 0 || __builtin_mul_overflow(bytes, extent, &bytes))
      throw CheckpointError("{}: tensor '{}' has the impossible shape {}", what, shown(name), text_of(shape));
  return uint64_t(bytes);
}

Header parse_header(std::string_view text, uint64_t data_bytes, const std::string& what) {
  // The parser would skip a byte-order mark and blanks; the format wants the brace at once.
  if (text.empty() || text.front() != '{') throw CheckpointError("{}: the header does not begin with '{{'", what);
  Header header;
  HeaderReader reader(header, what);
  json::sax_parse(text, &reader);
  // Empty tensors share their offset with a neighbour: they sort before it.
  std::ranges::stable_sort(header.entries, [](const Entry& a, const Entry& b) {
    return std::tie(a.begin, a.end) < std::tie(b.begin, b.end);
  });
  check_layout(header, data_bytes, what);
  return header;
}

std::string format_header(const std::vector<Entry>& entries, const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json root = nlohmann::ordered_json::object();
  if (!metadata.empty()) root["__metadata__"] = metadata;
  // Pushed without a look-up: an ordered object searches its keys one by one.
  auto& members = root.get_ref<nlohmann::ordered_json::object_t&>();
  for (const Entry& entry : entries) {
    nlohmann::ordered_json value;
    value["dtype"] = name_of(entry.type);
    value["shape"] = entry.shape;
    value["data_offsets"] = {entry.begin, entry.end};
    members.push_back({entry.name, std::move(value)});
  }
  std::string text = root.dump();
  text.append((8 - text.size() % 8) % 8, ' ');
  std::string length(8, '\0');
  for (int i = 0; i < 8; ++i) length[size_t(i)] = char(text.size() >> (8 * i));
  return length + text;
}

}  // namespace mixtape::safetensors
