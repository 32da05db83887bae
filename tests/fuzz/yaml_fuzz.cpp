// Fuzzes the configuration reader: any bytes give a configuration or a ConfigError, and what is read is written so that
// it reads back as the same. A seed corpus is configs/ and configs/presets/.
#include <cstdlib>
#include <string>

#include "core/base/error.h"
#include "train/config/config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace mixtape;
  std::string written;
  try {
    const ResolvedConfig resolved = parse_config({reinterpret_cast<const char*>(data), size}, "fuzz.yaml");
    written = to_yaml(resolved.config, &resolved.origins);
    check(resolved.config, resolved.origins);
  } catch (const ConfigError&) {
    if (written.empty()) return 0;
  }
  if (to_yaml(parse_resolved(written, "written")) != to_yaml(parse_config(written, "written").config)) std::abort();
  return 0;
}
