// What rules across keys are written with. Internal to train/config.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "train/config/config.h"
#include "train/config/schema.h"

namespace mixtape {

// Collects violations. Each begins with the key, its value and where it came from.
class Rules {
 public:
  Rules(const Config& config, const Origins& origins) : values_(leaves(config)), origins_(origins) {}

  // expected: "expected a divisor of model.d_model (768); set ..."
  void refuse(const std::string& key, const std::string& expected) {
    std::string value = "not given";
    for (const Leaf& leaf : values_)
      if (leaf.key == key) value = leaf.value;
    violations_ += violations_.empty() ? "" : "\n";
    violations_ += fmt::format("{}, {}", statement(origins_, key, value), expected);
  }
  void unavailable(const std::string& key, const std::string& available) {
    refuse(key, "which is not available in this version; it has " + available);
  }
  void finish() const {
    if (!violations_.empty()) throw ConfigError("{}", violations_);
  }

 private:
  std::vector<Leaf> values_;
  const Origins& origins_;
  std::string violations_;
};

// visit(key, its name in the section) for each that differs from its default.
template <class Visit>
void each_changed(const Config& c, const std::string& section, Visit&& visit) {
  const std::vector<Leaf> given = leaves(c), defaults = leaves(Config());
  for (const Leaf& leaf : given) {
    if (!leaf.key.starts_with(section + ".")) continue;
    const auto known = std::find_if(defaults.begin(), defaults.end(), [&](const Leaf& d) { return d.key == leaf.key; });
    if (known->value != leaf.value) visit(leaf.key, std::string_view(leaf.key).substr(section.size() + 1));
  }
}

// Rules about the update (check_update.cpp).
void check_optimizer(const Config& c, Rules& rules);
void check_precision(const Config& c, const BuildFeatures& build, Rules& rules);

}  // namespace mixtape
