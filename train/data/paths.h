// Names of text files.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace mixtape {

// Whether the name, without .gz or .zst, ends in .jsonl or .ndjson.
bool is_json_lines(const std::filesystem::path& path);
// Whether a directory's walk should take the file: .txt, .text, .md, .jsonl, .ndjson, also with .gz or .zst.
bool is_text_file(const std::filesystem::path& path);
// Shell patterns within one name: * any run of characters, ? one character.
bool matches_pattern(std::string_view name, std::string_view pattern);

}  // namespace mixtape
