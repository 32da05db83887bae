// Running the `mixtape` binary as its users do, in a directory of its own.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace mixtape {

struct ProcessResult {
  int exit_code = -1;  // 128 + signal if one ended it
  std::string out, err;
};

class Workspace {
 public:
  // A fresh temporary directory, removed at the end.
  Workspace();
  ~Workspace();
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  const std::filesystem::path& path() const { return path_; }
  void write(const std::string& file, const std::string& text) const;
  std::string read(const std::string& file) const;

  // `mixtape ARGUMENTS...` in this directory, to its end; the second has an emulated GPU.
  ProcessResult mixtape(const std::vector<std::string>& arguments) const;
  ProcessResult mixtape_emulated(const std::vector<std::string>& arguments) const;
  // Starts `mixtape`; the caller signals and waits.
  int start(const std::vector<std::string>& arguments) const;
  static int wait(int pid);

  // The same under `mpirun -np RANKS`, on as many cores as there are. `before`: words between mpirun's and mixtape's.
  ProcessResult mpirun(int ranks, const std::vector<std::string>& arguments,
                       const std::vector<std::string>& before = {}) const;
  // `mpirun -np 2`, with an emulated GPU each.
  ProcessResult two_emulated(const std::vector<std::string>& arguments) const;
  int start_mpirun(int ranks, const std::vector<std::string>& arguments) const;
  // What a program that start() or start_mpirun() started has written.
  std::string background_output() const { return read(".background.out") + read(".background.err"); }

 private:
  int launch(const std::vector<std::string>& words, const std::string& out, const std::string& err) const;
  ProcessResult finished(int pid) const;
  std::filesystem::path path_;
};

// Text with structure, the same every time: enough for a tiny model to learn from.
std::string sample_text(int documents);

}  // namespace mixtape
