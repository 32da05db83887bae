// runs/<name>: everything that a run leaves behind, and the lock that keeps a second trainer out.
//
//   config.resolved.yaml   what ran; an earlier, different one is kept as config.resolved.1.yaml, .2.yaml, ...
//   env.json               version, machine, libraries, threads, command line, start time, git commit of the directory
//   train.log              the lines of the console, with times
//   metrics.jsonl          train/report/metrics.h
//   tensorboard/           event files
//   checkpoints/           train/checkpoint
//   report.html            `mixtape report`
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace mixtape {

class RunDirectory {
 public:
  // Creates `path` with its folders, or opens it, and locks it until this object dies (flock, so a lock never outlives
  // its process). Throws ConfigError when another process holds it, or when it cannot be written.
  explicit RunDirectory(std::filesystem::path path);
  ~RunDirectory();
  RunDirectory(const RunDirectory&) = delete;
  RunDirectory& operator=(const RunDirectory&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path config_file() const { return path_ / "config.resolved.yaml"; }
  std::filesystem::path environment_file() const { return path_ / "env.json"; }
  std::filesystem::path log_file() const { return path_ / "train.log"; }
  std::filesystem::path metrics_file() const { return path_ / "metrics.jsonl"; }
  std::filesystem::path report_file() const { return path_ / "report.html"; }
  std::filesystem::path tensorboard() const { return path_ / "tensorboard"; }
  std::filesystem::path checkpoints() const { return path_ / "checkpoints"; }

  // Both replace the file atomically.
  void write_config(std::string_view resolved_yaml) const;
  void write_environment(const std::vector<std::string>& arguments) const;

 private:
  std::filesystem::path path_;
  int lock_ = -1;
};

// Writes a small file so that a reader sees the old content or the new, never a part. Throws Error.
void write_file_atomically(const std::filesystem::path& file, std::string_view content);
// Words joined so that a POSIX shell reads them back: quoted where needed.
std::string shell_command(const std::vector<std::string>& words);
// The commit that .git/HEAD of `directory` or a parent names; empty where there is none.
std::string git_commit(std::filesystem::path directory);

}  // namespace mixtape
