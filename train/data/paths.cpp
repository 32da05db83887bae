#include "train/data/paths.h"

#include <algorithm>
#include <array>

#include "core/base/error.h"
#include "train/data/text_reader.h"

namespace mixtape {
namespace {

namespace fs = std::filesystem;

std::string plain_extension(fs::path path) {
  if (path.extension() == ".gz" || path.extension() == ".zst") path.replace_extension();
  return path.extension().string();
}

bool has_pattern(std::string_view name) { return name.find_first_of("*?") != std::string_view::npos; }

// Files that match, one component of the pattern after the other.
void expand_pattern(const fs::path& base, const std::vector<std::string>& components, size_t at,
                    std::vector<fs::path>& out) {
  if (at == components.size()) {
    if (fs::is_regular_file(base)) out.push_back(base);
    return;
  }
  const std::string& component = components[at];
  if (!has_pattern(component)) return expand_pattern(base / component, components, at + 1, out);
  const fs::path directory = base.empty() ? fs::path(".") : base;
  if (!fs::is_directory(directory)) return;
  for (const auto& entry : fs::directory_iterator(directory)) {
    const std::string name = entry.path().filename().string();
    // As in a shell, a hidden file must be named by its dot.
    if (name.starts_with('.') && !component.starts_with('.')) continue;
    if (matches_pattern(name, component)) expand_pattern(base / name, components, at + 1, out);
  }
}

std::vector<fs::path> expand(const std::string& text) {
  const fs::path path(text);
  std::vector<fs::path> found;
  if (fs::is_directory(path)) {
    for (const auto& entry : fs::recursive_directory_iterator(path))
      if (entry.is_regular_file() && is_text_file(entry.path())) found.push_back(entry.path());
    if (found.empty())
      throw DataError(
          "{}: holds no text files (.txt, .md, .jsonl, also with .gz or .zst); name files of other "
          "extensions one by one or by a pattern",
          text);
  } else if (has_pattern(text) && !fs::exists(path)) {
    std::vector<std::string> components;
    for (const fs::path& component : path.relative_path()) components.push_back(component.string());
    expand_pattern(path.root_path(), components, 0, found);
    if (found.empty()) throw DataError("{}: the pattern matches no file", text);
  } else if (!fs::exists(path)) {
    throw DataError("{}: no such file or directory", text);
  } else {
    found.push_back(path);
  }
  std::sort(found.begin(), found.end());
  return found;
}

}  // namespace

bool is_json_lines(const fs::path& path) {
  const std::string extension = plain_extension(path);
  return extension == ".jsonl" || extension == ".ndjson";
}

bool is_text_file(const fs::path& path) {
  static constexpr std::array<std::string_view, 5> known{".txt", ".text", ".md", ".jsonl", ".ndjson"};
  return std::find(known.begin(), known.end(), plain_extension(path)) != known.end();
}

bool matches_pattern(std::string_view name, std::string_view pattern) {
  // On a mismatch, only the last star can take one character more: linear in practice, never exponential.
  size_t n = 0, p = 0, star = std::string_view::npos, taken = 0;
  while (n < name.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      taken = n;
    } else if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == name[n])) {
      ++p, ++n;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      n = ++taken;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

std::vector<fs::path> expand_paths(const std::vector<std::string>& paths) {
  std::vector<fs::path> all;
  for (const std::string& path : paths) {
    const auto files = expand(path);
    all.insert(all.end(), files.begin(), files.end());
  }
  return all;
}

}  // namespace mixtape
