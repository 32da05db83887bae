// What a resumed run may change: the answer of each field's table entry, applied to the differences of two
// configurations.
#include <map>

#include "train/config/schema.h"

namespace mixtape {

std::vector<ConfigChange> compare_for_resume(const Config& saved, const Config& now) {
  const std::vector<Leaf> before = leaves(saved), after = leaves(now);
  std::map<std::string, std::string> old_values, new_values;
  for (const Leaf& leaf : before) old_values[leaf.key] = leaf.value;
  for (const Leaf& leaf : after) new_values[leaf.key] = leaf.value;

  std::vector<ConfigChange> changes;
  const auto add = [&](const std::string& key, std::string from, std::string to) {
    const OnResume rule = find_key(key)->on_resume;
    changes.push_back({key, std::move(from), std::move(to), rule.kind != OnResume::refused, std::string(rule.reason)});
  };
  for (const Leaf& leaf : before) {
    const auto found = new_values.find(leaf.key);
    if (found == new_values.end())
      add(leaf.key, leaf.value, "not given");
    else if (found->second != leaf.value)
      add(leaf.key, leaf.value, found->second);
  }
  for (const Leaf& leaf : after)
    if (!old_values.contains(leaf.key)) add(leaf.key, "not given", leaf.value);
  return changes;
}

void refuse_changes(const std::vector<ConfigChange>& changes, const Origins& origins) {
  std::string refused;
  for (const ConfigChange& change : changes) {
    if (change.allowed) continue;
    refused += refused.empty() ? "" : "\n";
    refused += fmt::format("{}, but the checkpoint was trained with {}: {}", statement(origins, change.key, change.now),
                           change.saved, change.reason);
  }
  if (!refused.empty()) throw ConfigError("{}", refused);
}

}  // namespace mixtape
