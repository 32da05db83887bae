// The field tables as data, and the passage between Config and Tree. Internal to train/config.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/base/error.h"
#include "train/config/config.h"
#include "train/config/tree.h"

namespace mixtape {

// One key of the tables. A section has keys below it; `is_list` says that it is repeated (data.sources).
struct Key {
  std::string name, help, type;
  Range range;
  Aliases aliases;
  OnResume on_resume;  // never `inherited`
  bool is_list = false;
  std::vector<Key> keys;

  bool is_section() const { return !keys.empty(); }
  // The key of this name, or of which it is an alias; null where there is none.
  const Key* find(std::string_view any_name) const;
};

// The whole configuration's keys, below a root without a name.
const Key& schema();

// Follows a dotted key such as data.sources[0].path from the root; null where there is none.
const Key* find_key(std::string_view path);

// Replaces aliases by the proper names, in place. Throws for unknown keys and for a setting given by two names.
void use_proper_names(Tree& tree, const Key& section, const std::string& path);

Config config_from_tree(const Tree& tree, Origins& origins);
Tree tree_from_config(const Config& config);

// Every leaf in order, with its value as it would be written in YAML.
struct Leaf {
  std::string key, value;
};
std::vector<Leaf> leaves(const Config& config);

// A scalar, null or list of such as YAML on one line.
std::string yaml_text(const Tree& tree);

// "path.name", or "name" at the top.
std::string joined(const std::string& path, std::string_view name);

// "a.yaml:3: key is value" where it was given, "key is value (default)" where it was not: the start of a message.
std::string statement(const Origins& origins, const std::string& key, const std::string& value);

// "; did you mean 'x'?" with the nearest of the section's names, or a place elsewhere where the name is known.
std::string suggestion(std::string_view name, const Key& section);

// "from 0 to 10", "above 0", ""
std::string range_text(const Range& range);

}  // namespace mixtape
