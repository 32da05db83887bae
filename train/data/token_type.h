// Element types of token files, read at any alignment: Megatron's arrays start at odd addresses.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <limits>
#include <span>
#include <type_traits>

namespace mixtape {

static_assert(std::endian::native == std::endian::little, "token files are little-endian and read in place");

enum class TokenType : uint8_t { u8, i8, u16, i16, i32, u32, i64 };

constexpr int size_of(TokenType type) {
  switch (type) {
    case TokenType::u8:
    case TokenType::i8:
      return 1;
    case TokenType::u16:
    case TokenType::i16:
      return 2;
    case TokenType::i32:
    case TokenType::u32:
      return 4;
    case TokenType::i64:
      return 8;
  }
  return 0;
}

template <class T>
T load(const unsigned char* from) {
  T value;
  std::memcpy(&value, from, sizeof(T));
  return value;
}

// Elements at `from` as int32; what does not fit becomes -1, which no vocabulary has.
template <class T>
void widen(const unsigned char* from, std::span<int32_t> out) {
  for (size_t i = 0; i < out.size(); ++i) {
    const T value = load<T>(from + i * sizeof(T));
    if constexpr (sizeof(T) > 4) {
      out[i] = value < 0 || value > std::numeric_limits<int32_t>::max() ? -1 : int32_t(value);
    } else if constexpr (std::is_same_v<T, uint32_t>) {
      out[i] = value > uint32_t(std::numeric_limits<int32_t>::max()) ? -1 : int32_t(value);
    } else {
      out[i] = int32_t(value);
    }
  }
}

inline void widen(TokenType type, const unsigned char* from, std::span<int32_t> out) {
  switch (type) {
    case TokenType::u8:
      return widen<uint8_t>(from, out);
    case TokenType::i8:
      return widen<int8_t>(from, out);
    case TokenType::u16:
      return widen<uint16_t>(from, out);
    case TokenType::i16:
      return widen<int16_t>(from, out);
    case TokenType::i32:
      return widen<int32_t>(from, out);
    case TokenType::u32:
      return widen<uint32_t>(from, out);
    case TokenType::i64:
      return widen<int64_t>(from, out);
  }
}

}  // namespace mixtape
