#include "train/optim/parameter_groups.h"

#include <fnmatch.h>

#include <algorithm>

#include "core/base/error.h"

namespace mixtape {
namespace {

// Some names of the model, one of each kind, for a message: those of layers differ by a number only.
std::string examples_of(const std::vector<std::string>& names) {
  constexpr size_t shown = 8;
  std::vector<std::string> some;
  for (const std::string& name : names) {
    if (name.find("layers.") != name.npos && name.find("layers.0.") == name.npos) continue;
    if (!name.ends_with(".bias") && some.size() < shown) some.push_back(name);
  }
  return fmt::format("{}", fmt::join(some, ", "));
}

void expect_some(size_t matched, std::string_view key, const std::string& pattern,
                 const std::vector<std::string>& names) {
  if (matched == 0)
    throw ConfigError("{}: '{}' matches nothing; the model has {}, ...; mixtape plan --parameters lists all", key,
                      pattern, examples_of(names));
}

std::vector<std::string> names_of(const ParameterLayout& layout) {
  std::vector<std::string> names;
  for (const ParameterEntry& entry : layout.entries()) names.push_back(entry.name);
  return names;
}

}  // namespace

bool matches_name(const std::string& name, const std::string& pattern) {
  return fnmatch(pattern.c_str(), name.c_str(), 0) == 0;
}

std::vector<std::string> chosen(const std::vector<std::string>& names, const std::vector<std::string>& patterns,
                                std::string_view key) {
  std::vector<size_t> matched(patterns.size());
  std::vector<std::string> found;
  for (const std::string& name : names) {
    bool any = false;
    for (size_t i = 0; i < patterns.size(); ++i)
      if (matches_name(name, patterns[i])) ++matched[i], any = true;
    if (any) found.push_back(name);
  }
  for (size_t i = 0; i < patterns.size(); ++i)
    expect_some(matched[i], fmt::format("{}[{}]", key, i), patterns[i], names);
  return found;
}

std::vector<ParameterFactors> parameter_factors(const ParameterLayout& layout, const ParametersConfig& config) {
  std::vector<ParameterFactors> factors(size_t(layout.size()));
  for (size_t g = 0; g < config.groups.size(); ++g) {
    const ParameterGroupConfig& group = config.groups[g];
    size_t matched = 0;
    for (int id = 0; id < layout.size(); ++id) {
      if (!matches_name(layout[id].name, group.match)) continue;
      factors[size_t(id)] = {float(group.lr_factor), float(group.weight_decay_factor)};
      ++matched;
    }
    expect_some(matched, fmt::format("parameters.groups[{}].match", g), group.match, names_of(layout));
  }
  return factors;
}

}  // namespace mixtape
