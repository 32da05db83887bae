// A configuration as YAML, and as a flat list of keys.
#include <algorithm>

#include "train/config/numbers.h"
#include "train/config/schema.h"

namespace mixtape {
namespace {

// Whether a text can stand without quotes and still be read as this text by every YAML reader.
bool is_plain(std::string_view text) {
  const auto letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); };
  const auto inner = [&](char c) {
    return letter(c) || (c >= '0' && c <= '9') || c == '_' || c == '-' || c == '.' || c == '/';
  };
  if (text.empty() || !(letter(text[0]) || text[0] == '/' || text.starts_with("./") || text.starts_with("../")))
    return false;
  if (!std::all_of(text.begin(), text.end(), inner)) return false;
  std::string lower(text);
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? char(c + 32) : c; });
  for (std::string_view word : {"true", "false", "yes", "no", "on", "off", "y", "n", "null", "inf", "nan"})
    if (lower == word) return false;
  return true;
}

std::string in_quotes(std::string_view text) {
  std::string s = "\"";
  for (char c : text) {
    if (c == '"' || c == '\\')
      s += std::string("\\") + c;
    else if (c == '\n')
      s += "\\n";
    else if (c == '\t')
      s += "\\t";
    else if (uint8_t(c) < 0x20 || c == 0x7f)
      s += fmt::format("\\x{:02x}", uint8_t(c));
    else
      s += c;
  }
  return s + "\"";
}

void append_comment(std::string& out, size_t line_start, const std::string& key, const Origins* origins) {
  if (!origins) return;
  const auto found = origins->find(key);
  const size_t width = out.size() - line_start;
  out.append(width < 40 ? 40 - width : 1, ' ');
  out += "# " + (found == origins->end() ? Origin{} : found->second).text();
}

void append(std::string& out, const Tree& map, const std::string& path, int indent, const Origins* origins);

void append_items(std::string& out, const Tree& list, const std::string& key, int indent, const Origins* origins) {
  for (size_t i = 0; i < list.items.size(); ++i) {
    std::string item;
    append(item, list.items[i], fmt::format("{}[{}]", key, i), indent + 4, origins);
    item[indent + 2] = '-';
    out += item;
  }
}

void append(std::string& out, const Tree& map, const std::string& path, int indent, const Origins* origins) {
  for (const Entry& e : map.entries) {
    const size_t start = out.size();
    const std::string key = joined(path, e.key);
    out += std::string(indent, ' ') + e.key + ":";
    const bool has_sections =
        e.value.kind == Tree::list && !e.value.items.empty() && e.value.items[0].kind == Tree::map;
    if (e.value.kind == Tree::map || has_sections) {
      out += "\n";
      if (has_sections)
        append_items(out, e.value, key, indent, origins);
      else
        append(out, e.value, key, indent + 2, origins);
      continue;
    }
    out += fmt::format(" {}", yaml_text(e.value));
    append_comment(out, start, key, origins);
    out += "\n";
  }
}

void collect(const Tree& tree, const std::string& path, std::vector<Leaf>& leaves) {
  if (tree.kind == Tree::map) {
    for (const Entry& e : tree.entries) collect(e.value, joined(path, e.key), leaves);
  } else if (tree.kind == Tree::list && !tree.items.empty() && tree.items[0].kind == Tree::map) {
    for (size_t i = 0; i < tree.items.size(); ++i) collect(tree.items[i], fmt::format("{}[{}]", path, i), leaves);
  } else {
    leaves.push_back({path, yaml_text(tree)});
  }
}

}  // namespace

std::string yaml_text(const Tree& tree) {
  if (tree.kind == Tree::null) return "null";
  if (tree.kind == Tree::scalar) return tree.quoted && !is_plain(tree.text) ? in_quotes(tree.text) : tree.text;
  std::string list;
  for (const Tree& item : tree.items) list += (list.empty() ? "" : ", ") + yaml_text(item);
  return "[" + list + "]";
}

std::string to_yaml(const Config& config, const Origins* origins) {
  std::string out;
  append(out, tree_from_config(config), "", 0, origins);
  return out;
}

std::vector<Leaf> leaves(const Config& config) {
  std::vector<Leaf> all;
  collect(tree_from_config(config), "", all);
  return all;
}

}  // namespace mixtape
