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

 private:
  int launch(const char* program, const std::vector<std::string>& arguments, const std::string& out,
             const std::string& err) const;
  ProcessResult run(const char* program, const std::vector<std::string>& arguments) const;
  std::filesystem::path path_;
};

// Text with structure, the same every time: enough for a tiny model to learn from.
std::string sample_text(int documents);

}  // namespace mixtape
