// The file metrics.jsonl: repaired when opened, one write a line.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "core/base/error.h"
#include "train/report/metrics.h"
#include "train/report/run_directory.h"

namespace mixtape {
namespace {

// Whether a line stays when the run goes on at `from`: it is a whole object, and not of a step that will be redone.
bool stays(std::string_view line, ResumePoint from) {
  const auto json = nlohmann::json::parse(line, nullptr, false);
  if (!json.is_object()) return false;
  const auto at_most = [&](const char* key, int64_t limit) {
    const auto found = json.find(key);
    return found == json.end() || !found->is_number_integer() || found->get<int64_t>() <= limit;
  };
  return at_most("step", from.step) && at_most("attempt", from.attempt);
}

std::string kept_lines(const std::string& content, ResumePoint from) {
  std::string kept;
  if (from.step == 0 && from.attempt == 0) return kept;
  for (size_t begin = 0, end; (end = content.find('\n', begin)) != std::string::npos; begin = end + 1) {
    const std::string_view line(content.data() + begin, end - begin);
    if (stays(line, from)) kept.append(line).append(1, '\n');
  }
  return kept;
}

std::string content_of(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  std::stringstream content;
  if (in.peek() != std::ifstream::traits_type::eof()) content << in.rdbuf();
  return std::move(content).str();
}

}  // namespace

MetricsLog::MetricsLog(std::filesystem::path file, ResumePoint from) : file_(std::move(file)) {
  const std::string content = content_of(file_), kept = kept_lines(content, from);
  if (kept != content) write_file_atomically(file_, kept);
  fd_ = ::open(file_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (fd_ < 0) throw Error("{}: cannot be opened for writing: {}", file_.string(), std::strerror(errno));
}

MetricsLog::~MetricsLog() {
  if (fd_ >= 0) ::close(fd_);
}

bool MetricsLog::write_line(std::string line) {
  line += '\n';
  struct stat before;
  const bool sized = ::fstat(fd_, &before) == 0;
  size_t written = 0;
  while (written < line.size()) {
    const ssize_t n = ::write(fd_, line.data() + written, line.size() - written);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    written += size_t(n);
  }
  if (written == line.size()) return true;
  // Half a line would spoil the next one, too. If even this fails, readers skip the line that they cannot parse.
  if (written > 0 && sized) [[maybe_unused]]
    const int ignored = ::ftruncate(fd_, before.st_size);
  ++lost_lines_;
  return false;
}

}  // namespace mixtape
