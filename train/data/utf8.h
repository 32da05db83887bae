// Repair of text that is not UTF-8.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace mixtape {

// Length of the longest prefix of `text` that is valid UTF-8 (no overlong forms, surrogates or values above U+10FFFF).
size_t valid_utf8_prefix(std::string_view text);

// Replaces each maximal broken part by U+FFFD, as the Unicode standard (chapter 3, "U+FFFD Substitution of Maximal
// Subparts") and browsers do. Returns how many there were; valid text is left as it is.
uint64_t repair_utf8(std::string& text);

}  // namespace mixtape
