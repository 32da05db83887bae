// The spelling of bytes in the files of byte-level tokenizers (GPT-2): printable Latin-1 bytes stand for themselves,
// the 68 others for the characters from U+0100 on, in byte order. So a token is text, and "Ġ" (U+0120) is a blank.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace mixtape {

// Byte -> its character.
const std::array<uint32_t, 256>& byte_level_alphabet();

std::string to_byte_level(std::string_view bytes);

// The bytes that `spelling` stands for; nothing if it holds a character outside the alphabet.
std::optional<std::string> from_byte_level(std::string_view spelling);

}  // namespace mixtape
