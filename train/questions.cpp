// Questions of multiple choice: from JSON lines, from llm.c's files, and as tokens.
#include <algorithm>
#include <cstring>
#include <fstream>
#include <initializer_list>
#include <nlohmann/json.hpp>

#include "train/data/mapped_file.h"
#include "train/multiple_choice.h"

namespace mixtape {
namespace {

using Json = nlohmann::json;

constexpr uint64_t llmc_header_bytes = 1024;
constexpr int32_t llmc_magic = 20240522, llmc_version = 1;
constexpr uint16_t llmc_start = 65535;
constexpr size_t most_choices = 1000;

// Reads one line's object. `where` begins every message.
class QuestionReader {
 public:
  QuestionReader(const Json& object, std::string where) : object_(object), where_(std::move(where)) {
    if (!object.is_object())
      refuse(R"(no JSON object; expected {"context": "...", "choices": ["...", ...], "answer": 0})");
  }

  TextQuestion read() const {
    TextQuestion q;
    const Json& context = field({"context", "ctx"});
    if (!context.is_string()) refuse("\"context\" is no text");
    q.context = context.get<std::string>();
    const Json& choices = field({"choices", "endings"});
    if (!choices.is_array() || choices.size() < 2 || choices.size() > most_choices)
      refuse(fmt::format("\"choices\" is no list of 2 to {} texts", most_choices));
    for (const Json& choice : choices) {
      if (!choice.is_string() || choice.get<std::string>().empty()) refuse("a choice is empty or no text");
      q.choices.push_back(choice.get<std::string>());
    }
    const Json& answer = field({"answer", "label"});
    const auto last = int64_t(q.choices.size()) - 1;
    if (!answer.is_number_integer() || answer.get<int64_t>() < 0 || answer.get<int64_t>() > last)
      refuse(
          fmt::format("\"answer\" is {}, expected the number of a choice, 0 to {}", answer.dump().substr(0, 20), last));
    q.answer = answer.get<int32_t>();
    return q;
  }

 private:
  [[noreturn]] void refuse(const std::string& what) const { throw DataError("{}: {}", where_, what); }
  const Json& field(std::initializer_list<const char*> names) const {
    for (const char* name : names)
      if (const auto found = object_.find(name); found != object_.end()) return *found;
    refuse(fmt::format("\"{}\" is missing", *names.begin()));
  }

  const Json& object_;
  std::string where_;
};

bool is_blank(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }

std::string blank_between(const std::string& context, const std::string& choice) {
  return context.empty() || is_blank(context.back()) || is_blank(choice.front()) ? "" : " ";
}

// Context and choice as one text each, cut where the context alone, or another choice, stops having the same tokens: so
// all choices follow the same context.
void tokenise_together(const Tokenizer& tokenizer, const std::string& context, const std::vector<std::string>& choices,
                       Question& q) {
  const EncodeOptions options{.parse_special = false, .add_special = true};
  q.context = tokenizer.encode(context, options);
  std::vector<std::vector<int32_t>> texts;
  for (const std::string& choice : choices) {
    const auto& both = texts.emplace_back(tokenizer.encode(context + blank_between(context, choice) + choice, options));
    const auto same = std::mismatch(q.context.begin(), q.context.end(), both.begin(), both.end()).first;
    q.context.erase(same, q.context.end());
  }
  for (size_t c = 0; c < choices.size(); ++c)
    q.choices.push_back({{texts[c].begin() + int64_t(q.context.size()), texts[c].end()}, int64_t(choices[c].size())});
}

// The uint16 stream of an llm.c file.
class LlmcReader {
 public:
  explicit LlmcReader(const std::filesystem::path& path) : file_(path) {
    if (file_.size() < llmc_header_bytes) refuse("shorter than its header of 1024 bytes");
    if (header(0) != llmc_magic || header(1) != llmc_version)
      refuse(fmt::format("begins with {}, {}, expected {}, {}: not llm.c's file of questions", header(0), header(1),
                         llmc_magic, llmc_version));
    count_ = (file_.size() - llmc_header_bytes) / 2;
  }

  std::vector<Question> read() {
    std::vector<Question> questions;
    for (int32_t i = 0; i < header(2); ++i) {
      if (next() != llmc_start) refuse(fmt::format("question {} does not begin with 65535", i + 1));
      next(), next();  // its bytes and its index
      Question q{.answer = next()};
      const uint16_t n = next();
      q.context = tokens();
      for (uint16_t c = 0; c < n; ++c) {
        q.choices.push_back({tokens()});
        if (q.choices.back().tokens.empty()) refuse(fmt::format("question {} has an empty choice", i + 1));
      }
      if (n < 2 || q.answer >= n)
        refuse(fmt::format("question {} has the answer {} of {} choices", i + 1, q.answer, n));
      questions.push_back(std::move(q));
    }
    if (at_ != count_) refuse(fmt::format("has {} bytes after its {} questions", (count_ - at_) * 2, header(2)));
    return questions;
  }

 private:
  [[noreturn]] void refuse(const std::string& what) const { throw DataError("{}: {}", file_.path().string(), what); }
  int32_t header(size_t i) const {
    int32_t value;
    std::memcpy(&value, file_.data() + 4 * i, 4);
    return value;
  }
  uint16_t next() {
    if (at_ >= count_) refuse("ends within a question");
    uint16_t value;
    std::memcpy(&value, file_.data() + llmc_header_bytes + 2 * at_++, 2);
    return value;
  }
  std::vector<int32_t> tokens() {
    std::vector<int32_t> ids(next());
    for (int32_t& id : ids) id = next();
    return ids;
  }

  MappedFile file_;
  uint64_t count_ = 0, at_ = 0;
};

}  // namespace

std::vector<TextQuestion> read_questions(const std::filesystem::path& path) {
  std::ifstream in(path);
  if (!in) throw DataError("{}: cannot be read; expected one question a line, as JSON", path.string());
  std::vector<TextQuestion> questions;
  int64_t number = 0;
  for (std::string line; std::getline(in, line);) {
    ++number;
    if (std::ranges::all_of(line, is_blank)) continue;
    const std::string where = fmt::format("{}:{}", path.string(), number);
    const Json object = Json::parse(line, nullptr, false);
    if (object.is_discarded()) throw DataError("{}: not valid JSON", where);
    questions.push_back(QuestionReader(object, where).read());
  }
  if (questions.empty()) throw DataError("{}: no questions; expected one a line, as JSON", path.string());
  return questions;
}

std::vector<Question> tokenised(const std::vector<TextQuestion>& questions, const std::vector<TextQuestion>& solved,
                                const Tokenizer& tokenizer, bool after_encoder) {
  std::string before;
  for (const TextQuestion& s : solved) {
    const std::string& choice = s.choices[size_t(s.answer)];
    before += s.context + blank_between(s.context, choice) + choice + "\n\n";
  }
  std::vector<Question> list;
  for (size_t i = 0; i < questions.size(); ++i) {
    const TextQuestion& text = questions[i];
    const std::string context = before + text.context;
    Question& q = list.emplace_back();
    q.answer = text.answer;
    if (after_encoder) {
      q.context = tokenizer.encode(context, {.parse_special = true, .add_special = true});
      for (const std::string& choice : text.choices)
        q.choices.push_back({tokenizer.encode(choice, {.parse_special = true}), int64_t(choice.size())});
    } else {
      tokenise_together(tokenizer, context, text.choices, q);
    }
    for (size_t c = 0; c < q.choices.size(); ++c)
      if (q.choices[c].tokens.empty()) throw DataError("question {}: choice {} has no tokens", i + 1, c + 1);
  }
  return list;
}

bool is_llmc_questions(const std::filesystem::path& path) { return path.extension() == ".bin"; }

std::vector<Question> read_llmc_questions(const std::filesystem::path& path) { return LlmcReader(path).read(); }

}  // namespace mixtape
