#include "core/base/utf8.h"

#include <gtest/gtest.h>

#include <string>

namespace mixtape {
namespace {

TEST(Utf8, EveryCharacterComesBack) {
  for (uint32_t code = 0; code <= 0x10FFFF; code += code < 0x3000 ? 1 : 61) {
    if (code >= 0xD800 && code < 0xE000) continue;
    std::string text;
    append_utf8(text, code);
    const Utf8Char c = utf8_char(text, 0);
    ASSERT_TRUE(c.valid && c.code == code && c.length == text.size()) << code;
    for (size_t cut = 1; cut < text.size(); ++cut) {
      const Utf8Char part = utf8_char(std::string_view(text).substr(0, cut), 0);
      ASSERT_TRUE(!part.valid && part.truncated && part.length == cut) << code;
    }
  }
}

// The examples of the Unicode standard, tables 3-8 to 3-11.
TEST(Utf8, FaultsAreMaximalParts) {
  const auto faults = [](std::string_view text) {
    std::string marks;
    while (!text.empty()) {
      const char32_t c = take_character(text);
      marks += c == replacement_character ? '?' : char(c);
    }
    return marks;
  };
  EXPECT_EQ(faults("\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41"), "????????A");  // overlong
  EXPECT_EQ(faults("\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41"), "????????A");  // surrogates
  EXPECT_EQ(faults("\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42"), "?????A??B");  // beyond U+10FFFF, stray bytes
  EXPECT_EQ(faults("\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41"), "????A");      // truncated
  EXPECT_FALSE(is_utf8("a\xC3"));
  EXPECT_TRUE(is_utf8("a\xC3\xA9"));
  EXPECT_EQ(to_valid_utf8("a\xC3"), "a\xEF\xBF\xBD");
}

TEST(Utf8, ACharacterInTheMakingWaits) {
  std::string bytes = "a\xE2\x82";
  EXPECT_EQ(take_complete_utf8(bytes), "a");
  bytes += "\xAC!";
  EXPECT_EQ(take_complete_utf8(bytes), "\xE2\x82\xAC!");
  EXPECT_EQ(bytes, "");
}

TEST(Utf8, WhereACharacterBegins) {
  const std::string text = "a\xE2\x82\xAC";
  EXPECT_EQ(character_start(text, 0), 0u);
  for (const size_t at : {1, 2, 3}) EXPECT_EQ(character_start(text, at), 1u);
  EXPECT_EQ(character_start(text, 4), 4u);
}

}  // namespace
}  // namespace mixtape
