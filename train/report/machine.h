// What the machine and the build are, and what about them is worth a warning: for `mixtape doctor` and env.json.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace mixtape {

struct Finding {
  std::string section;  // "CPU", "threads", "memory", "libraries", "build"
  std::string name, value;
  std::string advice;  // empty: in order; else what is not, and what to do
  bool ok() const { return advice.empty(); }
};

// Reads /proc, /sys and the libraries; never fails (what cannot be read is left out) and never computes for long.
std::vector<Finding> examine_machine(const std::filesystem::path& directory = ".");

// The findings as an aligned list under section titles, each with "ok" or "!!" and its advice below it.
std::string findings_text(const std::vector<Finding>&, bool colour);

std::string version();         // "0.1.0"
std::string build_text();      // "0.1.0, GCC 12.2.0, Release, CUDA no, MPI no": what `mixtape --version` prints
std::string processor_name();  // as the system calls it; "unknown" where it does not
std::string environment(const char* name);  // a variable's value; empty where it is not set
int available_cores();                      // that this process may run on: affinity and, where set, the cgroup's quota

}  // namespace mixtape
