// Looking up keys, and suggesting the one that was meant.
#include "train/config/schema.h"

#include <algorithm>
#include <cmath>

#include "train/config/numbers.h"

namespace mixtape {
namespace {

// The number of inserted, dropped or replaced characters between two names.
size_t distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t replaced = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, replaced});
    }
  }
  return row[b.size()];
}

// The full path of the first key below `section` that is called `name`.
std::string place_of(std::string_view name, const Key& section, const std::string& path) {
  for (const Key& key : section.keys)
    if (key.name == name) return joined(path, key.name);
  for (const Key& key : section.keys) {
    const std::string found = key.is_list ? "" : place_of(name, key, joined(path, key.name));
    if (!found.empty()) return found;
  }
  return "";
}

}  // namespace

const Key* Key::find(std::string_view any_name) const {
  for (const Key& key : keys)
    if (key.name == any_name) return &key;
  if (any_name.empty()) return nullptr;
  for (const Key& key : keys)
    for (std::string_view alias : key.aliases.names)
      if (alias == any_name) return &key;
  return nullptr;
}

const Key* find_key(std::string_view path) {
  const Key* key = &schema();
  while (key && !path.empty()) {
    const size_t dot = path.find('.');
    std::string_view name = path.substr(0, dot);
    path = dot == path.npos ? "" : path.substr(dot + 1);
    if (const size_t bracket = name.find('['); bracket != name.npos) name = name.substr(0, bracket);
    key = key->find(name);
  }
  return key;
}

std::string joined(const std::string& path, std::string_view name) {
  const std::string shown = name.size() > 80 ? std::string(name.substr(0, 80)) + "..." : std::string(name);
  return path.empty() ? shown : path + "." + shown;
}

std::string statement(const Origins& origins, const std::string& key, const std::string& value) {
  const auto found = origins.find(key);
  const Origin origin = found == origins.end() ? Origin{} : found->second;
  if (origin.kind == Origin::by_default || origin.kind == Origin::derived)
    return fmt::format("{} is {} ({})", key, value, origin.text());
  return fmt::format("{}: {} is {}", origin.text(), key, value);
}

std::string suggestion(std::string_view name, const Key& section) {
  if (name.size() > 80) return "";
  const Key* best = nullptr;
  size_t least = std::max<size_t>(2, name.size() / 3) + 1;
  const auto consider = [&](std::string_view known, const Key& key) {
    if (const size_t d = distance(name, known); !known.empty() && d < least && d < known.size()) {
      least = d;
      best = &key;
    }
  };
  for (const Key& key : section.keys) consider(key.name, key);
  for (const Key& key : section.keys)
    for (std::string_view alias : key.aliases.names) consider(alias, key);
  if (best && least <= 1) return fmt::format("; did you mean '{}'?", best->name);
  if (const std::string place = place_of(name, schema(), ""); !place.empty())
    return fmt::format("; did you mean '{}'?", place);
  if (best) return fmt::format("; did you mean '{}'?", best->name);
  return "";
}

std::string range_text(const Range& range) {
  const auto number = [](double x) {
    return std::abs(x) < 1e15 && x == double(int64_t(x)) ? fmt::format("{}", int64_t(x)) : number_text(x);
  };
  const bool below = range.bounds_below(), above = range.bounds_above();
  if (below && above && !range.without_least && !range.without_most)
    return fmt::format("from {} to {}", number(range.least), number(range.most));
  std::string text;
  if (below) text = fmt::format("{} {}", range.without_least ? "above" : "of at least", number(range.least));
  if (above)
    text += fmt::format("{}{} {}", text.empty() ? "" : " and ", range.without_most ? "below" : "at most",
                        number(range.most));
  return text;
}

}  // namespace mixtape
