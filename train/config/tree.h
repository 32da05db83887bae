// A configuration as text in a tree: what lies between a file and the structs. Internal to train/config.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "train/config/origin.h"

namespace mixtape {

struct Entry;

struct Tree {
  enum Kind { null, scalar, list, map } kind = null;
  std::string text;            // scalar
  bool quoted = false;         // scalar: written in quotes, so it is a text even if it looks like a number
  std::vector<Tree> items;     // list
  std::vector<Entry> entries;  // map, in the order of the file
  Origin origin;

  const Tree* find(std::string_view key) const;
  Tree* find(std::string_view key);

  // In messages: 'abc', a list, keys, nothing.
  std::string shown() const;
};

struct Entry {
  std::string key;
  Tree value;  // its origin is the key's line
};

// The one document in `text`, a map, list or scalar. `origin` gives the kind and the name of the source; lines are
// filled in. Refuses what has no place in a configuration or is read differently by different readers: text that is
// not UTF-8, more than 1 MiB, more than 8 levels, 10,000 values, a second document, duplicate keys, keys that are not
// plain texts, anchors, aliases and tags. Throws ConfigError and nothing else, whatever the bytes are.
Tree read_yaml(std::string_view text, const Origin& origin);

// Maps are merged key by key; everything else is replaced.
void merge(Tree& below, Tree above);

}  // namespace mixtape
