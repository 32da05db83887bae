#include "train/tuning_cache.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "core/cpu/parallel.h"
#include "train/report/machine.h"
#include "train/report/run_directory.h"

namespace mixtape {

// The processor is part of the name: a home directory may be shared by unlike machines.
std::filesystem::path tuning_file(const Backend& backend) {
  const char* off = std::getenv("MIXTAPE_TUNING");
  if (off && std::string(off) == "off") return {};
  std::filesystem::path root;
  if (const char* cache = std::getenv("XDG_CACHE_HOME"); cache && *cache) {
    root = cache;
  } else if (const char* home = std::getenv("HOME"); home && *home) {
    root = std::filesystem::path(home) / ".cache";
  } else {
    return {};
  }
  std::string cpu;
  for (const char c : processor_name()) cpu += std::isalnum(uint8_t(c)) ? c : '-';
  return root / "mixtape" / fmt::format("choices-{}-{}-{}-threads.txt", backend.name(), cpu, thread_count());
}

std::string load_tuning(const Backend& backend) {
  std::ifstream file(tuning_file(backend));
  std::ostringstream text;
  if (file) text << file.rdbuf();
  return text.str();
}

void save_tuning(const Backend& backend) {
  const std::filesystem::path file = tuning_file(backend);
  const std::string text = backend.choices();
  if (file.empty() || text.empty()) return;
  try {
    std::filesystem::create_directories(file.parent_path());
    write_file_atomically(file, text);
  } catch (const std::exception&) {  // a read-only home, say
  }
}

}  // namespace mixtape
