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

namespace {

std::vector<std::string> with_program(std::vector<std::string> words, const char* program,
                                      const std::vector<std::string>& arguments) {
  words.push_back(program);
  words.insert(words.end(), arguments.begin(), arguments.end());
  return words;
}

std::vector<std::string> mpirun_words(int ranks) {
  return {"mpirun", "-np", std::to_string(ranks), "--oversubscribe", "--bind-to", "none"};
}

}  // namespace

int Workspace::launch(const std::vector<std::string>& words, const std::string& out, const std::string& err) const {
  const std::string out_path = (path_ / out).string(), err_path = (path_ / err).string();
  const int pid = fork();
  if (pid != 0) return pid;
  if (chdir(path_.c_str()) != 0) _exit(127);
  dup2(open(out_path.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644), 1);
  dup2(open(err_path.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644), 2);
  setenv("MIXTAPE_TUNING", "off", 1);
  setenv("OMP_WAIT_POLICY", "passive", 1);
  // Tests run in containers, as root, and leaks in MPI are not ours.
  setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 1);
  setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 1);
  if (words[0] == "mpirun") setenv("ASAN_OPTIONS", "detect_leaks=0", 1);
  std::vector<char*> argv;
  for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  execvp(argv[0], argv.data());
  _exit(127);
}

int Workspace::wait(int pid) {
  int status = 0;
  waitpid(pid, &status, 0);
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

ProcessResult Workspace::finished(int pid) const {
  ProcessResult result;
  result.exit_code = wait(pid);
  result.out = read(".out");
  result.err = read(".err");
  return result;
}

ProcessResult Workspace::mixtape(const std::vector<std::string>& arguments) const {
  return finished(launch(with_program({}, MIXTAPE_BINARY, arguments), ".out", ".err"));
}
ProcessResult Workspace::mixtape_emulated(const std::vector<std::string>& arguments) const {
  return finished(launch(with_program({}, MIXTAPE_EMULATED_BINARY, arguments), ".out", ".err"));
}

int Workspace::start(const std::vector<std::string>& arguments) const {
  return launch(with_program({}, MIXTAPE_BINARY, arguments), ".background.out", ".background.err");
}

ProcessResult Workspace::mpirun(int ranks, const std::vector<std::string>& arguments,
                                const std::vector<std::string>& before) const {
  std::vector<std::string> words = mpirun_words(ranks);
  words.insert(words.end(), before.begin(), before.end());
  return finished(launch(with_program(words, MIXTAPE_BINARY, arguments), ".out", ".err"));
}

ProcessResult Workspace::two_emulated(const std::vector<std::string>& arguments) const {
  return finished(launch(with_program(mpirun_words(2), MIXTAPE_EMULATED_BINARY, arguments), ".out", ".err"));
}

int Workspace::start_mpirun(int ranks, const std::vector<std::string>& arguments) const {
  return launch(with_program(mpirun_words(ranks), MIXTAPE_BINARY, arguments), ".background.out", ".background.err");
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
