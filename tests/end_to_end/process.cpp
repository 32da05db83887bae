#include "tests/end_to_end/process.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "core/base/philox.h"

namespace mixtape {

Workspace::Workspace() {
  std::string pattern = (std::filesystem::temp_directory_path() / "mixtape-test-XXXXXX").string();
  path_ = mkdtemp(pattern.data());
}

Workspace::~Workspace() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

void Workspace::write(const std::string& file, const std::string& text) const {
  std::filesystem::create_directories((path_ / file).parent_path());
  std::ofstream(path_ / file, std::ios::binary) << text;
}

std::string Workspace::read(const std::string& file) const {
  std::ifstream in(path_ / file, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

int Workspace::launch(const char* program, const std::vector<std::string>& arguments, const std::string& out,
                      const std::string& err) const {
  const std::string out_path = (path_ / out).string(), err_path = (path_ / err).string();
  const int pid = fork();
  if (pid != 0) return pid;
  if (chdir(path_.c_str()) != 0) _exit(127);
  dup2(open(out_path.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644), 1);
  dup2(open(err_path.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644), 2);
  setenv("MIXTAPE_TUNING", "off", 1);
  setenv("OMP_WAIT_POLICY", "passive", 1);
  std::vector<char*> argv{const_cast<char*>(program)};
  for (const std::string& a : arguments) argv.push_back(const_cast<char*>(a.c_str()));
  argv.push_back(nullptr);
  execv(program, argv.data());
  _exit(127);
}

int Workspace::wait(int pid) {
  int status = 0;
  waitpid(pid, &status, 0);
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

ProcessResult Workspace::run(const char* program, const std::vector<std::string>& arguments) const {
  ProcessResult result;
  result.exit_code = wait(launch(program, arguments, ".out", ".err"));
  result.out = read(".out");
  result.err = read(".err");
  return result;
}

ProcessResult Workspace::mixtape(const std::vector<std::string>& arguments) const {
  return run(MIXTAPE_BINARY, arguments);
}
ProcessResult Workspace::mixtape_emulated(const std::vector<std::string>& arguments) const {
  return run(MIXTAPE_EMULATED_BINARY, arguments);
}

int Workspace::start(const std::vector<std::string>& arguments) const {
  return launch(MIXTAPE_BINARY, arguments, ".background.out", ".background.err");
}

std::string sample_text(int documents) {
  const char* subjects[] = {"The river", "A lighthouse", "Every gardener", "The old clock", "My neighbour", "The moon"};
  const char* verbs[] = {"remembers", "paints", "repairs", "follows", "counts", "forgives"};
  const char* objects[] = {"the stones", "seven letters", "a quiet song", "its own shadow", "the morning", "no one"};
  std::string text;
  for (int d = 0; d < documents; ++d) {
    for (int s = 0; s < 3 + d % 4; ++s) {
      const auto bits = philox(philox_key(11), uint64_t(d * 16 + s), 0, Purpose::test);
      text += std::string(subjects[bits[0] % 6]) + " " + verbs[bits[1] % 6] + " " + objects[bits[2] % 6] + ". ";
    }
    text += "\n%\n";
  }
  return text;
}

}  // namespace mixtape
