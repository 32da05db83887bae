// Tree to Config and back, and the tables as data: the only place that walks the field tables by type.
#include <cmath>

#include "train/config/numbers.h"
#include "train/config/schema.h"

namespace mixtape {
namespace {

// What a value of type T is called in messages and in docs/config.md.
template <class T>
std::string type_text(const Range& range) {
  const std::string limits = range_text(range);
  const std::string space = limits.empty() ? "" : " ";
  if constexpr (std::is_same_v<T, bool>) {
    return "true or false";
  } else if constexpr (std::is_same_v<T, int64_t>) {
    return "an integer" + space + limits;
  } else if constexpr (std::is_same_v<T, double>) {
    return "a number" + space + limits;
  } else if constexpr (std::is_same_v<T, std::string>) {
    return "a text";
  } else if constexpr (NamedEnum<T>) {
    std::string list;
    for (const auto& n : names(std::type_identity<T>{})) list += (list.empty() ? "" : " | ") + std::string(n.name);
    return list;
  } else if constexpr (is_auto_type<T>) {
    return "auto or " + type_text<typename T::value_type>(range);
  } else if constexpr (is_optional_type<T>) {
    return "null or " + type_text<typename T::value_type>(range);
  } else if constexpr (is_vector_type<T>) {
    return "a list, each " + type_text<typename T::value_type>(range);
  } else {
    static_assert(is_array_type<T>, "a setting of a type that the configuration does not know");
    return fmt::format("a list of {}, each {}", std::tuple_size_v<T>, type_text<typename T::value_type>(range));
  }
}

// `expected` is the type's text, of the outermost type where one stands for several (null or a number).
[[noreturn]] void refuse(const Tree& tree, const std::string& path, const std::string& expected,
                         const std::string& hint = {}) {
  throw ConfigError("{}: {} is {}, expected {}{}", tree.origin.text(), path, tree.shown(), expected, hint);
}

std::string boolean_hint(std::string_view text) {
  for (std::string_view yes : {"yes", "Yes", "YES", "on", "On", "ON", "True", "TRUE", "y", "1"})
    if (text == yes) return "; write true";
  for (std::string_view no : {"no", "No", "NO", "off", "Off", "OFF", "False", "FALSE", "n", "0"})
    if (text == no) return "; write false";
  return "";
}

template <NamedEnum E>
std::string nearest_name(std::string_view text) {
  Key all;
  for (const auto& n : names(std::type_identity<E>{})) all.keys.push_back({.name = std::string(n.name)});
  return suggestion(text, all);
}

template <class T>
T read_value(const Tree& tree, const std::string& path, const Range& range, const std::string& expected);

template <class T>
T read_list(const Tree& tree, const std::string& path, const Range& range, const std::string& expected) {
  using Item = typename T::value_type;
  T list{};
  if (tree.kind != Tree::list) refuse(tree, path, expected);
  if constexpr (is_vector_type<T>)
    list.resize(tree.items.size());
  else if (tree.items.size() != list.size())
    refuse(tree, path, expected);
  for (size_t i = 0; i < list.size(); ++i)
    list[i] = read_value<Item>(tree.items[i], fmt::format("{}[{}]", path, i), range, type_text<Item>(range));
  return list;
}

template <class T>
T read_number_value(const Tree& tree, const std::string& path, const Range& range, const std::string& expected) {
  std::optional<T> value;
  if constexpr (std::is_same_v<T, int64_t>)
    value = read_integer(tree.text);
  else
    value = read_number(tree.text);
  if (value && tree.quoted) refuse(tree, path, expected, "; write it without quotes");
  if (!value) refuse(tree, path, expected, why_no_number(tree.text));
  if (!range.contains(double(*value))) refuse(tree, path, expected);
  return *value;
}

template <class T>
T read_value(const Tree& tree, const std::string& path, const Range& range, const std::string& expected) {
  if constexpr (is_optional_type<T>)
    if (tree.kind == Tree::null) return {};
  if constexpr (is_auto_type<T>)
    if (tree.kind == Tree::scalar && tree.text == "auto") return {};
  if constexpr (is_optional_type<T> || is_auto_type<T>) {
    return T(read_value<typename T::value_type>(tree, path, range, expected));
  } else if constexpr (is_vector_type<T> || is_array_type<T>) {
    return read_list<T>(tree, path, range, expected);
  } else {
    if (tree.kind != Tree::scalar) refuse(tree, path, expected);
    if constexpr (std::is_same_v<T, std::string>) {
      return tree.text;
    } else if constexpr (std::is_same_v<T, bool>) {
      if (!tree.quoted && tree.text == "true") return true;
      if (!tree.quoted && tree.text == "false") return false;
      refuse(tree, path, expected, boolean_hint(tree.text));
    } else if constexpr (NamedEnum<T>) {
      if (const auto value = parse_enum<T>(tree.text)) return *value;
      refuse(tree, path, expected, nearest_name<T>(tree.text));
    } else {
      return read_number_value<T>(tree, path, range, expected);
    }
  }
}

Tree scalar(std::string text, bool quoted = false) {
  Tree t;
  t.kind = Tree::scalar;
  t.text = std::move(text);
  t.quoted = quoted;
  return t;
}

template <HasFields T>
Tree write_section(const T& section);

template <class T>
Tree write_value(const T& value) {
  if constexpr (is_auto_type<T>) {
    return value ? write_value(*value) : scalar("auto");
  } else if constexpr (is_optional_type<T>) {
    return value ? write_value(*value) : Tree{};
  } else if constexpr (is_vector_type<T> || is_array_type<T>) {
    Tree t;
    t.kind = Tree::list;
    for (const auto& item : value) {
      if constexpr (HasFields<std::decay_t<decltype(item)>>)
        t.items.push_back(write_section(item));
      else
        t.items.push_back(write_value(item));
    }
    return t;
  } else if constexpr (std::is_same_v<T, bool>) {
    return scalar(value ? "true" : "false");
  } else if constexpr (std::is_same_v<T, int64_t>) {
    return scalar(fmt::format("{}", value));
  } else if constexpr (std::is_same_v<T, double>) {
    return scalar(number_text(value));
  } else if constexpr (std::is_same_v<T, std::string>) {
    return scalar(value, true);
  } else {
    static_assert(NamedEnum<T>);
    return scalar(std::string(name_of(value)));
  }
}

// What is done for each of some hundred fields stands in functions that are no templates: compiled once, not inlined.
void add_entry(Tree& to, std::string_view name, Tree value) {
  to.entries.push_back({std::string(name), std::move(value)});
}

template <HasFields T>
Tree write_section(const T& section) {
  Tree t;
  t.kind = Tree::map;
  for_each_field<T>([&](const auto& f) {
    using M = typename std::decay_t<decltype(f)>::Type;
    if constexpr (HasFields<M>)
      add_entry(t, f.name, write_section(section.*f.member));
    else
      add_entry(t, f.name, write_value(section.*f.member));
  });
  return t;
}

void remember(const Tree& tree, const std::string& path, Origins& origins) {
  origins[path] = tree.origin;
  for (size_t i = 0; i < tree.items.size(); ++i) remember(tree.items[i], fmt::format("{}[{}]", path, i), origins);
}

// A section without a value has no keys.
void expect_map(Tree& tree, const std::string& path, const Key& section) {
  if (tree.kind == Tree::null) tree.kind = Tree::map;
  if (tree.kind == Tree::map) return;
  const std::string example = section.keys.empty() ? "" : fmt::format(", such as {}", section.keys.front().name);
  throw ConfigError("{}: {} is {}, expected keys below it{}", tree.origin.text(),
                    path.empty() ? "the configuration" : path, tree.shown(), example);
}

template <HasFields T>
void read_section(const Tree& tree, const std::string& path, T& section, Origins& origins) {
  for_each_field<T>([&](const auto& f) {
    using M = typename std::decay_t<decltype(f)>::Type;
    const Tree* value = tree.find(f.name);
    if (!value) return;
    const std::string key = joined(path, f.name);
    if constexpr (HasFields<M>) {
      read_section(*value, key, section.*f.member, origins);
    } else if constexpr (is_vector_type<M>) {
      if constexpr (HasFields<typename M::value_type>) {
        (section.*f.member).assign(value->items.size(), {});
        for (size_t i = 0; i < value->items.size(); ++i)
          read_section(value->items[i], fmt::format("{}[{}]", key, i), (section.*f.member)[i], origins);
        origins[key] = value->origin;
      } else {
        section.*f.member = read_value<M>(*value, key, f.range, type_text<M>(f.range));
        remember(*value, key, origins);
      }
    } else {
      section.*f.member = read_value<M>(*value, key, f.range, type_text<M>(f.range));
      remember(*value, key, origins);
    }
  });
}

template <HasFields T>
std::vector<Key> describe(OnResume around) {
  std::vector<Key> keys;
  for_each_field<T>([&](const auto& f) {
    using M = typename std::decay_t<decltype(f)>::Type;
    Key key{std::string(f.name), std::string(f.help), "", f.range, f.aliases, f.on_resume};
    if (key.on_resume.kind == OnResume::inherited) key.on_resume = around;
    if constexpr (HasFields<M>) {
      key.type = "keys";
      key.keys = describe<M>(key.on_resume);
    } else if constexpr (is_vector_type<M>) {
      if constexpr (HasFields<typename M::value_type>) {
        key.type = "a list of keys";
        key.is_list = true;
        key.keys = describe<typename M::value_type>(key.on_resume);
      } else {
        key.type = type_text<M>(f.range);
      }
    } else {
      key.type = type_text<M>(f.range);
    }
    keys.push_back(std::move(key));
  });
  return keys;
}

}  // namespace

const Key& schema() {
  static const Key root = [] {
    Key key;
    key.on_resume = allowed_on_resume;
    key.keys = describe<Config>(allowed_on_resume);
    return key;
  }();
  return root;
}

void use_proper_names(Tree& tree, const Key& section, const std::string& path) {
  expect_map(tree, path, section);
  for (Entry& entry : tree.entries) {
    const Key* key = section.find(entry.key);
    if (!key)
      throw ConfigError("{}: {}: unknown key{}", entry.value.origin.text(), joined(path, entry.key),
                        suggestion(entry.key, section));
    if (const Tree* other = tree.find(key->name); other && other != &entry.value)
      throw ConfigError("{}: {} is given twice, as '{}' and as '{}' (in line {}); keep one", entry.value.origin.text(),
                        joined(path, key->name), entry.key, key->name, other->origin.line);
    entry.key = key->name;
    const std::string name = joined(path, key->name);
    if (!key->is_section()) continue;
    if (!key->is_list) {
      use_proper_names(entry.value, *key, name);
      continue;
    }
    if (entry.value.kind == Tree::null) entry.value.kind = Tree::list;
    if (entry.value.kind != Tree::list)
      throw ConfigError("{}: {} is {}, expected a list; begin each item with '-'", entry.value.origin.text(), name,
                        entry.value.shown());
    for (size_t i = 0; i < entry.value.items.size(); ++i)
      use_proper_names(entry.value.items[i], *key, fmt::format("{}[{}]", name, i));
  }
}

Config config_from_tree(const Tree& tree, Origins& origins) {
  Config config;
  read_section(tree, "", config, origins);
  return config;
}

Tree tree_from_config(const Config& config) { return write_section(config); }

}  // namespace mixtape
