#include "train/parallel/launch.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "core/base/error.h"
#include "train/parallel/placement.h"
#include "train/parallel/world.h"

namespace mixtape {
namespace {

std::atomic<int> launcher{0};  // the process of mpirun
std::atomic<bool> stop_asked{false};
static_assert(std::atomic<int>::is_always_lock_free && std::atomic<bool>::is_always_lock_free);  // for a handler

// mpirun passes SIGUSR1 on to all ranks; its own way with SIGTERM is to kill them, and it then exits as it likes.
void pass_on(int signal) {
  const bool again = stop_asked.exchange(true);
  kill(launcher, again && signal != SIGUSR1 ? SIGTERM : SIGUSR1);
}

// "mpirun (Open MPI) 4.1.4"; empty where there is none.
std::string version_of_mpirun() {
  std::FILE* pipe = popen("mpirun --version 2>/dev/null", "r");
  if (!pipe) return {};
  char line[200] = "";
  const bool any = std::fgets(line, sizeof line, pipe) != nullptr;
  while (std::fgetc(pipe) != EOF) {  // so that it does not die of a closed pipe
  }
  return pclose(pipe) == 0 && any ? std::string(line, std::string(line).find_last_not_of('\n') + 1) : std::string();
}

void expect_open_mpi(int ranks) {
  if (const MpiModule module = find_mpi_module(); module.path.empty())
    throw ConfigError("--devices {}: {}", ranks, module.missing);
  const std::string version = version_of_mpirun();
  if (version.empty())
    throw ConfigError("--devices {} starts mpirun, but there is none on the PATH; install Open MPI (openmpi-bin)",
                      ranks);
  if (version.find("Open MPI") == std::string::npos && version.find("OpenRTE") == std::string::npos)
    throw ConfigError(
        "--devices {} knows Open MPI's mpirun, but the one on the PATH is {}; start mpirun -np {} yourself", ranks,
        version, ranks);
}

// No binding: processes then share the machine's cores as threads_of_rank() of the trainer deals them out. All on this
// machine, also where a scheduler has given more of them.
std::vector<std::string> mpirun_words(int ranks) {
  std::vector<std::string> words{
      "mpirun",    "-np",  std::to_string(ranks), "--host", fmt::format("localhost:{}", ranks),
      "--bind-to", "none", "--oversubscribe"};
  if (geteuid() == 0) words.emplace_back("--allow-run-as-root");
  return words;
}

// In a process group of its own, so that Ctrl-C reaches it through pass_on() alone.
[[noreturn]] void become(const std::vector<std::string>& words, int parent) {
  setpgid(0, 0);
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (getppid() != parent) _exit(int(Exit::failure));
  if (const int null = open("/dev/null", O_RDONLY); null >= 0)
    dup2(null, 0);  // not the terminal, which it may not read
  std::vector<char*> argv;
  for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  execvp(argv[0], argv.data());
  std::perror("mixtape: mpirun");
  _exit(int(Exit::failure));
}

}  // namespace

int launch_ranks(int ranks, const std::vector<std::string>& arguments) {
  expect_open_mpi(ranks);
  std::vector<std::string> words = mpirun_words(ranks);
  words.push_back(std::filesystem::read_symlink("/proc/self/exe").string());
  words.insert(words.end(), arguments.begin(), arguments.end());
  if (const Place here = place_here(); ranks > CPU_COUNT(&here.cores)) setenv("OMP_WAIT_POLICY", "passive", 0);

  // Signals wait until there is somebody to pass them on to.
  sigset_t passed, before;
  sigemptyset(&passed);
  for (const int signal : {SIGINT, SIGTERM, SIGUSR1}) sigaddset(&passed, signal);
  sigprocmask(SIG_BLOCK, &passed, &before);
  const int parent = getpid(), child = fork();
  if (child < 0) throw Error("--devices {}: no process can be started: {}", ranks, std::strerror(errno));
  if (child == 0) {
    sigprocmask(SIG_SETMASK, &before, nullptr);
    become(words, parent);
  }
  launcher = child;
  struct sigaction action {};
  action.sa_handler = pass_on;
  action.sa_flags = SA_RESTART;
  for (const int signal : {SIGINT, SIGTERM, SIGUSR1}) sigaction(signal, &action, nullptr);
  sigprocmask(SIG_SETMASK, &before, nullptr);

  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

}  // namespace mixtape
