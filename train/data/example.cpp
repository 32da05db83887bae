#include "train/data/example.h"

#include <algorithm>
#include <array>
#include <memory>
#include <nlohmann/json.hpp>
#include <thread>

#include "core/base/error.h"
#include "train/data/byte_stream.h"
#include "train/data/ordered_pipeline.h"
#include "train/data/paths.h"
#include "train/data/text_reader.h"
#include "train/data/tokenizer/json_reading.h"

namespace mixtape {
namespace {

constexpr size_t most_line_bytes = size_t(64) << 20;

std::string shown(const nlohmann::json& value) {
  std::string text = value.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
  return text.size() > 60 ? text.substr(0, 60) + "..." : text;
}

// Some lines of one file.
struct Lines {
  std::string path;
  uint64_t first = 0;  // the number of the first
  std::vector<std::string> text;
};

// Lines of files in portions, so that a thread has some work at a time.
class LineSource {
 public:
  explicit LineSource(std::vector<std::filesystem::path> files) : files_(std::move(files)) {}

  std::optional<Lines> next() {
    constexpr size_t portion = size_t(64) << 10;
    for (;;) {
      if (!stream_ && !open_next()) return std::nullopt;
      Lines lines{.path = path_, .first = line_};
      size_t bytes = 0;
      for (std::string line; bytes < portion && read(line);) {
        bytes += line.size() + 1;
        lines.text.push_back(std::move(line));
        ++line_;
      }
      if (lines.text.empty()) {
        stream_.reset();
        continue;
      }
      return lines;
    }
  }

 private:
  bool open_next() {
    if (next_file_ == files_.size()) return false;
    path_ = files_[next_file_++].string();
    stream_ = ByteStream::open(path_);
    buffer_.clear();
    begin_ = 0;
    line_ = 1;
    return true;
  }

  bool read(std::string& line) {
    for (size_t searched = begin_;;) {
      const size_t end = buffer_.find('\n', searched);
      if (end != buffer_.npos) return take(line, end, end + 1);
      searched = buffer_.size();
      if (searched - begin_ > most_line_bytes)
        throw DataError("{}:{}: the line is longer than {} bytes", path_, line_, most_line_bytes);
      buffer_.erase(0, begin_);
      searched -= begin_;
      begin_ = 0;
      std::array<char, size_t(64) << 10> part;
      const size_t count = stream_->read(part);
      buffer_.append(part.data(), count);
      if (count == 0) return begin_ < buffer_.size() && take(line, buffer_.size(), buffer_.size());
    }
  }

  bool take(std::string& line, size_t end, size_t next) {
    line.assign(buffer_, begin_, end - begin_);
    if (line.ends_with('\r')) line.pop_back();
    if (line_ == 1 && line.starts_with("\xEF\xBB\xBF")) line.erase(0, 3);
    begin_ = next;
    return true;
  }

  std::vector<std::filesystem::path> files_;
  size_t next_file_ = 0;
  std::string path_;
  std::unique_ptr<ByteStream> stream_;
  std::string buffer_;
  size_t begin_ = 0;
  uint64_t line_ = 1;
};

std::vector<Example> encode_lines(const Lines& lines, const std::function<Example(const Record&)>& encode) {
  std::vector<Example> examples;
  for (size_t i = 0; i < lines.text.size(); ++i) {
    const std::string& line = lines.text[i];
    if (line.find_first_not_of(" \t") == line.npos) continue;
    const std::string where = fmt::format("{}:{}", lines.path, lines.first + i);
    const nlohmann::json json = parse_json(line, where);
    if (!json.is_object()) throw DataError("{}: {}, expected a JSON object", where, shown(json));
    examples.push_back(encode(Record(json, where)));
  }
  return examples;
}

}  // namespace

void Record::fail(const std::string& what) const { throw DataError("{}: {}", where_, what); }

const nlohmann::json* Record::find(Names names) const {
  for (const char* name : names)
    if (const auto found = object_.find(name); found != object_.end() && !found->is_null()) return &*found;
  return nullptr;
}

const nlohmann::json& Record::get(Names names) const {
  if (const nlohmann::json* value = find(names)) return *value;
  std::string keys;
  for (const auto& [key, value] : object_.items()) keys += (keys.empty() ? "" : ", ") + key;
  fail(fmt::format("there is no \"{}\"; the line has {}", fmt::join(names, "\" or \""),
                   keys.empty() ? "no keys" : keys));
}

const std::string* Record::optional_text(Names names) const {
  const nlohmann::json* value = find(names);
  if (!value) return nullptr;
  if (!value->is_string()) fail(fmt::format("\"{}\" is {}, expected a text", *names.begin(), shown(*value)));
  return &value->get_ref<const std::string&>();
}

const std::string& Record::text(Names names) const {
  get(names);
  return *optional_text(names);
}

std::vector<std::string> Record::texts(Names names) const {
  const nlohmann::json& list = get(names);
  std::vector<std::string> texts;
  if (!list.is_array()) fail(fmt::format("\"{}\" is {}, expected a list of texts", *names.begin(), shown(list)));
  for (const nlohmann::json& item : list) {
    if (!item.is_string()) fail(fmt::format("\"{}\" holds {}, expected texts", *names.begin(), shown(item)));
    texts.push_back(item.get<std::string>());
  }
  return texts;
}

int32_t Record::label_of(const nlohmann::json& value, const char* name, const std::vector<std::string>& labels) const {
  if (value.is_string()) {
    const auto found = std::find(labels.begin(), labels.end(), value.get_ref<const std::string&>());
    if (found != labels.end()) return int32_t(found - labels.begin());
  } else if (value.is_number_integer()) {
    const auto number = value.get<int64_t>();
    if (number >= 0 && number < int64_t(labels.size())) return int32_t(number);
  }
  fail(fmt::format("\"{}\" is {}, expected one of objective.labels ({}) or its number from 0", name, shown(value),
                   fmt::join(labels, ", ")));
}

int32_t Record::label(Names names, const std::vector<std::string>& labels) const {
  return label_of(get(names), *names.begin(), labels);
}

std::vector<int32_t> Record::label_list(Names names, const std::vector<std::string>& labels) const {
  const nlohmann::json& list = get(names);
  if (!list.is_array()) fail(fmt::format("\"{}\" is {}, expected a list of labels", *names.begin(), shown(list)));
  std::vector<int32_t> numbers;
  for (const nlohmann::json& item : list) numbers.push_back(label_of(item, *names.begin(), labels));
  return numbers;
}

void ExampleSet::add(const Example& example) {
  cut_ += example.cut;
  if (std::all_of(example.targets.begin(), example.targets.end(), [](int32_t t) { return t < 0; })) {
    ++without_target_;
    return;
  }
  tokens_.insert(tokens_.end(), example.tokens.begin(), example.tokens.end());
  types_.insert(types_.end(), example.types.begin(), example.types.end());
  targets_.insert(targets_.end(), example.targets.begin(), example.targets.end());
  ends_.push_back({tokens_.size(), types_.size(), targets_.size()});
}

ExampleView ExampleSet::operator[](size_t index) const {
  const End begin = index > 0 ? ends_[index - 1] : End{}, end = ends_[index];
  const auto part = [](const std::vector<int32_t>& all, uint64_t from, uint64_t to) {
    return std::span(all).subspan(from, to - from);
  };
  return {part(tokens_, begin.tokens, end.tokens), part(types_, begin.types, end.types),
          part(targets_, begin.targets, end.targets)};
}

ExampleSet read_examples(const std::string& path, const std::function<Example(const Record&)>& encode) {
  const std::vector<std::filesystem::path> files = expand_paths({path});
  for (const auto& file : files)
    if (!is_json_lines(file))
      throw DataError("{}: expected examples as JSON, one object a line (.jsonl, .ndjson, also with .gz or .zst)",
                      file.string());
  ExampleSet set;
  LineSource source(files);
  const int workers = int(std::max(1u, std::thread::hardware_concurrency()));
  OrderedPipeline<Lines, std::vector<Example>>(workers, 4 * workers)
      .run([&] { return source.next(); }, [&](Lines&& lines) { return encode_lines(lines, encode); },
           [&](std::vector<Example>&& examples) {
             for (const Example& example : examples) set.add(example);
           });
  if (set.size() == 0)
    throw DataError("{}: {}", path,
                    set.without_target() > 0 ? "no example has anything left to predict; raise data.seq_length"
                                             : "there is no example in it");
  return set;
}

}  // namespace mixtape
