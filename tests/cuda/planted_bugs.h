// Finding a planted bug: if the launch throws, the result is wrong in some order of threads, something past the end was
// written, or a sanitizer ends the process. So each runs in a process of its own.
#pragma once

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <functional>
#include <initializer_list>
#include <utility>

#include "core/base/error.h"
#include "cuda/emulator/threads.h"

namespace mixtape::cuda {

// Orders of threads in which a bug has the chance to show. A kernel without any runs in all of them where that takes
// little time.
constexpr int orders = 20, orders_without_bug = MIXTAPE_ASAN || MIXTAPE_TSAN ? 2 : orders;

// In a child: 0 if nothing was noticed.
inline bool found(const std::function<bool()>& result_is_right, int orders = cuda::orders) {
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child == 0) {
    if (!std::freopen("/dev/null", "w", stderr)) _exit(3);
    bool right = true;
    try {
      for (int seed = 1; seed <= orders && right; ++seed) {
        emulator::set_seed(uint64_t(seed));
        right = result_is_right();
      }
    } catch (const Error&) {
      right = false;
    }
    _exit(right ? 0 : 1);  // nothing of the parent ends here, and what it holds is no leak
  }
  int status = 0;
  waitpid(child, &status, 0);
  return !(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

#define EXPECT_FOUND(test, ...)                                                                            \
  EXPECT_FALSE(found([] { return test<Bug::none>(); }, orders_without_bug)) << "accused without a reason"; \
  for (const auto& [run, name] : std::initializer_list<std::pair<bool (*)(), const char*>>{__VA_ARGS__})   \
  EXPECT_TRUE(found(run)) << name
#define PLANTED(test, bug) \
  { test<Bug::bug>, #bug }

}  // namespace mixtape::cuda
