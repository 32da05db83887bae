// The map of docs/architecture.md holds: what is where, and that dependencies point one way.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <regex>
#include <set>
#include <string>
#include <vector>

namespace fs = std::filesystem;

namespace mixtape {
namespace {

const fs::path root = MIXTAPE_SOURCE;

bool is_source(const fs::path& file) {
  static const std::set<fs::path> extensions{".h", ".cpp", ".cu", ".cuh"};
  return extensions.contains(file.extension());
}

std::vector<fs::path> sources_below(const fs::path& folder) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::recursive_directory_iterator(folder))
    if (entry.is_regular_file() && is_source(entry.path())) files.push_back(entry.path());
  return files;
}

// The families of operations: the names in core/ops.
std::vector<std::string> families() {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(root / "core/ops"))
    if (entry.path().extension() == ".cpp") names.push_back(entry.path().stem().string());
  return names;
}

// The paths in a file's #include "..." lines.
std::vector<std::string> includes_of(const fs::path& file) {
  static const std::regex include(R"rx(^\s*#include\s+"([^"]+)")rx");
  std::vector<std::string> paths;
  std::ifstream in(file);
  std::smatch match;
  for (std::string line; std::getline(in, line);)
    if (std::regex_search(line, match, include)) paths.push_back(match[1]);
  return paths;
}

TEST(Layout, TopLevelHoldsWhatWasAgreed) {
  const std::set<std::string> agreed{".ci",     ".clang-format", ".gitignore", "CMakeLists.txt", "CONTRIBUTING.md",
                                     "LICENSE", "README.md",     "configs",    "core",           "cuda",
                                     "docs",    "scripts",       "shared",     "tests",          "train"};
  const std::set<std::string> ignored{".git", ".cache", "runs", "data", "compile_commands.json"};
  for (const auto& entry : fs::directory_iterator(root)) {
    const std::string name = entry.path().filename().string();
    if (ignored.contains(name) || name.starts_with("build") || name.starts_with(".venv")) continue;
    EXPECT_TRUE(agreed.contains(name)) << name << " is not on the map in docs/architecture.md";
  }
}

TEST(Layout, EachFamilyIsInEachBackEndAndTested) {
  const std::vector<std::string> names = families();
  EXPECT_EQ(names.size(), 10u);
  for (const std::string& name : names) {
    EXPECT_TRUE(fs::exists(root / "core/ops" / (name + ".h"))) << name;
    EXPECT_TRUE(fs::exists(root / "tests/ops" / (name + "_test.cpp"))) << name << " has no tests/ops test";
    EXPECT_TRUE(fs::exists(root / "core/cpu" / (name + ".cpp")) || fs::is_directory(root / "core/cpu" / name))
        << name << " has no kernels in core/cpu";
    if (!fs::exists(root / "cuda/backend.h")) continue;
    EXPECT_TRUE(fs::exists(root / "cuda" / (name + ".cu")) || fs::is_directory(root / "cuda" / name))
        << name << " has no kernels in cuda";
  }
}

TEST(Layout, DependenciesPointOneWay) {
  const auto forbid = [](const fs::path& folder, const std::vector<std::string>& prefixes) {
    for (const fs::path& file : sources_below(root / folder))
      for (const std::string& path : includes_of(file))
        for (const std::string& prefix : prefixes)
          EXPECT_FALSE(path.starts_with(prefix)) << file << " includes " << path;
  };
  forbid("core", {"train/", "cuda/", "tests/"});
  forbid("core/base", {"core/cpu/", "core/ops/", "core/model/", "core/tape.h", "core/tensor.h", "core/backend.h"});
  forbid("core/ops", {"core/cpu/", "core/model/"});
  forbid("core/model", {"core/cpu/"});
  forbid("train", {"tests/"});
  if (fs::exists(root / "cuda")) forbid("cuda", {"train/", "core/cpu/"});
}

// The one place that names back ends, beside the commands that examine the machine or the kernels.
TEST(Layout, OnlyDevicesNamesBackEnds) {
  for (const fs::path& file : sources_below(root / "train")) {
    const std::string name = fs::relative(file, root).string();
    if (name == "train/devices.cpp") continue;
    for (const std::string& path : includes_of(file))
      EXPECT_FALSE(path == "core/cpu/backend.h" || path == "cuda/backend.h") << name << " includes " << path;
  }
}

// Heavy libraries stay in .cpp files, so that a header costs what it says. (JSON is in headers that some .cpp files of
// one folder share.)
TEST(Layout, HeadersAreLight) {
  static const std::regex heavy(R"(#include\s+[<"](yaml-cpp/|spdlog/))");
  for (const char* folder : {"core", "train"})
    for (const fs::path& file : sources_below(root / folder)) {
      if (file.extension() != ".h") continue;
      std::ifstream in(file);
      for (std::string line; std::getline(in, line);)
        EXPECT_FALSE(std::regex_search(line, heavy)) << file << ": " << line;
    }
}

// CLI11 costs each file that includes it ten seconds of compiling.
TEST(Layout, OneFileKnowsTheCommandLineLibrary) {
  for (const char* folder : {"core", "train"})
    for (const fs::path& file : sources_below(root / folder)) {
      if (file.filename() == "command.cpp") continue;
      std::ifstream in(file);
      for (std::string line; std::getline(in, line);)
        EXPECT_EQ(line.find("#include <CLI/"), std::string::npos) << file << ": " << line;
    }
}

}  // namespace
}  // namespace mixtape
