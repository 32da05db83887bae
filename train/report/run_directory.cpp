#include "train/report/run_directory.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "train/report/machine.h"

namespace mixtape {
namespace {

namespace fs = std::filesystem;

std::string read_text(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(in), {});
}

void write_all(int fd, std::string_view content, const fs::path& file) {
  while (!content.empty()) {
    const ssize_t n = ::write(fd, content.data(), content.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) throw Error("{}: cannot be written: {}", file.string(), std::strerror(errno));
    content.remove_prefix(size_t(n));
  }
}

void sync_directory(const fs::path& directory) {
  const int fd = ::open(directory.empty() ? "." : directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  ::fsync(fd);
  ::close(fd);
}

std::string utc_time() {
  const std::time_t now = std::time(nullptr);
  std::tm broken_down{};
  ::gmtime_r(&now, &broken_down);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &broken_down);
  return text;
}

// A folder that exists and a lock on the file in it; what goes wrong is the user's to mend, so it says how.
int locked(const fs::path& path) {
  const fs::path file = path / ".lock";
  const int fd = ::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (fd < 0)
    throw ConfigError("{}: the run directory cannot be written: {}; choose another with run.dir=DIR", path.string(),
                      std::strerror(errno));
  if (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
    const int reason = errno;
    const std::string owner = read_text(file);
    ::close(fd);
    if (reason != EWOULDBLOCK) throw ConfigError("{}: cannot be locked: {}", file.string(), std::strerror(reason));
    throw ConfigError(
        "{}: another process{}{} is training in this run directory; wait for it, or choose another name with "
        "run.name=NAME",
        path.string(), owner.empty() ? "" : ", number ", owner.substr(0, owner.find('\n')));
  }
  const std::string owner = std::to_string(::getpid()) + "\n";
  if (::ftruncate(fd, 0) == 0) (void)!::write(fd, owner.data(), owner.size());  // for the message above only
  return fd;
}

}  // namespace

RunDirectory::RunDirectory(fs::path path) : path_(std::move(path)) {
  std::error_code failed;
  fs::create_directories(path_, failed);
  if (failed)
    throw ConfigError("{}: the run directory cannot be created: {}; choose another with run.dir=DIR", path_.string(),
                      failed.message());
  lock_ = locked(path_);
  fs::create_directories(checkpoints(), failed);
}

RunDirectory::~RunDirectory() { ::close(lock_); }

void RunDirectory::write_config(std::string_view resolved_yaml) const {
  const std::string earlier = read_text(config_file());
  if (earlier == resolved_yaml) return;
  if (!earlier.empty()) {
    int number = 1;
    const auto numbered = [&] { return path_ / fmt::format("config.resolved.{}.yaml", number); };
    while (fs::exists(numbered())) ++number;
    write_file_atomically(numbered(), earlier);
  }
  write_file_atomically(config_file(), resolved_yaml);
}

void RunDirectory::write_environment(const std::vector<std::string>& arguments) const {
  nlohmann::ordered_json json;
  json["mixtape"] = build_text();
  json["command"] = shell_command(arguments);
  json["started"] = utc_time();
  std::error_code ignored;
  const fs::path here = fs::current_path(ignored);
  json["directory"] = here.string();
  if (const std::string commit = git_commit(here); !commit.empty()) json["git_commit"] = commit;
  for (const Finding& finding : examine_machine(path_)) {
    json[finding.section][finding.name] = finding.value;
    if (!finding.ok()) json["warnings"].push_back(finding.name + ": " + finding.advice);
  }
  write_file_atomically(environment_file(), json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
}

void write_file_atomically(const fs::path& file, std::string_view content) {
  const fs::path temporary = file.string() + fmt::format(".{}.tmp", ::getpid());
  const int fd = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) throw Error("{}: cannot be written: {}", file.string(), std::strerror(errno));
  try {
    write_all(fd, content, file);
    if (::fsync(fd) != 0) throw Error("{}: cannot be written: {}", file.string(), std::strerror(errno));
  } catch (...) {
    ::close(fd);
    ::unlink(temporary.c_str());
    throw;
  }
  ::close(fd);
  if (::rename(temporary.c_str(), file.c_str()) != 0) {
    const int reason = errno;
    ::unlink(temporary.c_str());
    throw Error("{}: cannot be replaced: {}", file.string(), std::strerror(reason));
  }
  sync_directory(file.parent_path());
}

std::string shell_command(const std::vector<std::string>& words) {
  constexpr std::string_view safe = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+=./:,@%";
  std::string command;
  for (const std::string& word : words) {
    if (!command.empty()) command += ' ';
    if (!word.empty() && word.find_first_not_of(safe) == std::string::npos) {
      command += word;
      continue;
    }
    command += '\'';
    for (const char c : word) command += c == '\'' ? "'\\''" : std::string(1, c);
    command += '\'';
  }
  return command;
}

std::string git_commit(fs::path directory) {
  const auto is_hash = [](const std::string& text) {
    return text.size() >= 40 && text.find_first_not_of("0123456789abcdef") == std::string::npos;
  };
  const auto first_line = [](const fs::path& file) {
    std::ifstream in(file);
    std::string line;
    std::getline(in, line);
    return line;
  };
  std::error_code ignored;
  for (; !directory.empty(); directory = directory.parent_path()) {
    const fs::path git = directory / ".git";
    const std::string head = first_line(git / "HEAD");
    if (is_hash(head)) return head;
    if (head.starts_with("ref: refs/") && head.find("..") == std::string::npos) {
      const std::string name = head.substr(5);
      if (const std::string hash = first_line(git / name); is_hash(hash)) return hash;
      std::ifstream packed(git / "packed-refs");
      for (std::string line; std::getline(packed, line);)
        if (line.size() > 41 && line.substr(41) == name && is_hash(line.substr(0, 40))) return line.substr(0, 40);
      return {};
    }
    if (directory == directory.parent_path()) break;
  }
  return {};
}

}  // namespace mixtape
