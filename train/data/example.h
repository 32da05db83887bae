// Examples of fine-tuning: a line of a JSONL file each, tokenised when the file is opened and kept in memory.
//
//   ExampleSet set = read_examples({"reviews.jsonl"}, [&](const Record& record) { return task.encode(record); });
//   set[7].tokens
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace mixtape {

// An object of a JSONL file. What it lacks or has wrong is a DataError that begins with file and line.
class Record {
 public:
  // Names under which a field may stand: the first is Mixtape's.
  using Names = std::initializer_list<const char*>;

  // `where`: "reviews.jsonl:7".
  Record(const nlohmann::json& object, std::string where) : object_(object), where_(std::move(where)) {}

  const std::string& text(Names names) const;
  const std::string* optional_text(Names names) const;  // null where it is absent or null
  std::vector<std::string> texts(Names names) const;
  // A label, or a list of them, each given by its name or by its number among `labels`.
  int32_t label(Names names, const std::vector<std::string>& labels) const;
  std::vector<int32_t> label_list(Names names, const std::vector<std::string>& labels) const;
  [[noreturn]] void fail(const std::string& what) const;

 private:
  const nlohmann::json* find(Names names) const;
  const nlohmann::json& get(Names names) const;
  int32_t label_of(const nlohmann::json& value, const char* name, const std::vector<std::string>& labels) const;

  const nlohmann::json& object_;
  std::string where_;
};

// An example as a model sees it.
struct Example {
  std::vector<int32_t> tokens;  // that the only stack reads, or the encoder
  std::vector<int32_t> types;   // of the tokens; empty: all 0
  // One for each token, -1 where there is none. After an encoder: what the decoder writes, token after token.
  std::vector<int32_t> targets;
  bool cut = false;  // the line had more tokens
};
struct ExampleView {
  std::span<const int32_t> tokens, types, targets;  // types may be empty
};

// Many of them, in flat arrays.
class ExampleSet {
 public:
  // An example without a target is counted and left out.
  void add(const Example& example);
  size_t size() const { return ends_.size(); }
  ExampleView operator[](size_t index) const;

  uint64_t cut() const { return cut_; }
  uint64_t without_target() const { return without_target_; }

 private:
  struct End {
    uint64_t tokens, types, targets;
  };
  std::vector<int32_t> tokens_, types_, targets_;
  std::vector<End> ends_;
  uint64_t cut_ = 0, without_target_ = 0;
};

// All examples of files (.jsonl or .ndjson, also with .gz or .zst), in order; `encode` is called from many threads.
// Blank lines are passed over. Throws DataError with file and line.
ExampleSet read_examples(const std::string& path, const std::function<Example(const Record&)>& encode);

}  // namespace mixtape
