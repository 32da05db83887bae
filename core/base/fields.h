// Settings declared once: a table of pointers to members beside each struct.
//
//   struct OptimizerConfig { double lr = 6e-4; };
//   constexpr auto fields(std::type_identity<OptimizerConfig>) {
//     using C = OptimizerConfig;
//     return std::tuple{field("lr", &C::lr, "peak learning rate", Range{0, 10})};
//   }
//
// The type and the default come from the member. Reading, writing, help texts, ranges, suggestions for misspelt names
// and the comparison of two configurations all walk these tables with `for_each_field`; nothing else lists names.
// Enums are declared the same way, by `names(std::type_identity<E>)`. No text format is known here.
#pragma once

#include <fmt/format.h>

#include <array>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

namespace mixtape {

// Numbers that a setting may take: [least, most], or open where said so.
struct Range {
  double least = -std::numeric_limits<double>::infinity();
  double most = std::numeric_limits<double>::infinity();
  bool without_least = false;
  bool without_most = false;

  constexpr bool contains(double x) const {
    return (without_least ? x > least : x >= least) && (without_most ? x < most : x <= most);
  }
  constexpr bool bounds_below() const { return least != -std::numeric_limits<double>::infinity(); }
  constexpr bool bounds_above() const { return most != std::numeric_limits<double>::infinity(); }
};

constexpr Range at_least(double x) { return {.least = x}; }
constexpr Range above(double x) { return {.least = x, .without_least = true}; }
constexpr Range above_up_to(double x, double most) { return {.least = x, .most = most, .without_least = true}; }
constexpr Range from_to_below(double least, double x) { return {.least = least, .most = x, .without_most = true}; }
constexpr Range between(double x, double y) {
  return {.least = x, .most = y, .without_least = true, .without_most = true};
}

// Other names under which a setting is accepted: what other frameworks call it.
struct Aliases {
  static constexpr int capacity = 8;
  std::array<std::string_view, capacity> names{};

  constexpr Aliases() = default;
  template <class... Names>
  constexpr explicit Aliases(Names... n) : names{std::string_view(n)...} {
    static_assert(sizeof...(Names) <= capacity);
  }
};

// May a resumed run change this setting? A nested setting without an answer has that of the struct around it, and at
// the top the answer is yes.
struct OnResume {
  enum Kind { inherited, allowed, refused } kind = inherited;
  std::string_view reason;  // why it is refused
};
constexpr OnResume allowed_on_resume{OnResume::allowed, {}};
constexpr OnResume refused_on_resume(std::string_view reason) { return {OnResume::refused, reason}; }

template <class Struct, class Member>
struct Field {
  using Type = Member;

  std::string_view name;
  Member Struct::*member;
  std::string_view help;
  Range range;
  Aliases aliases;
  OnResume on_resume;

  constexpr void set(Range r) { range = r; }
  constexpr void set(const Aliases& a) { aliases = a; }
  constexpr void set(OnResume r) { on_resume = r; }
};

// The options are a Range, Aliases and an OnResume, in any order.
template <class Struct, class Member, class... Options>
constexpr Field<Struct, Member> field(std::string_view name, Member Struct::*member, std::string_view help,
                                      const Options&... options) {
  Field<Struct, Member> f{name, member, help, {}, {}, {}};
  (f.set(options), ...);
  return f;
}

template <class T>
concept HasFields = requires {
  fields(std::type_identity<T>{});
};

// A constant, so that no walk makes the table anew.
template <HasFields T>
inline constexpr auto field_table = fields(std::type_identity<T>{});

template <HasFields T, class Visitor>
constexpr void for_each_field(Visitor&& visit) {
  std::apply([&](const auto&... f) { (visit(f), ...); }, field_table<T>);
}

// One value of an enum and its text in files and messages.
template <class E>
struct Named {
  E value;
  std::string_view name;
};

template <class E>
concept NamedEnum = std::is_enum_v<E> && requires {
  names(std::type_identity<E>{});
};

template <NamedEnum E>
constexpr std::string_view name_of(E value) {
  for (const Named<E>& n : names(std::type_identity<E>{}))
    if (n.value == value) return n.name;
  return "?";
}

template <NamedEnum E>
constexpr std::optional<E> parse_enum(std::string_view text) {
  for (const Named<E>& n : names(std::type_identity<E>{}))
    if (n.name == text) return n.value;
  return std::nullopt;
}

// A setting that is chosen for the user unless a value is given; its text is then `auto`.
template <class T>
struct Auto : std::optional<T> {
  using std::optional<T>::optional;
  using std::optional<T>::operator=;
  bool is_auto() const { return !this->has_value(); }
};

template <class T>
inline constexpr bool is_auto_type = false;
template <class T>
inline constexpr bool is_auto_type<Auto<T>> = true;
template <class T>
inline constexpr bool is_optional_type = false;
template <class T>
inline constexpr bool is_optional_type<std::optional<T>> = true;
template <class T>
inline constexpr bool is_vector_type = false;
template <class T>
inline constexpr bool is_vector_type<std::vector<T>> = true;
template <class T>
inline constexpr bool is_array_type = false;
template <class T, size_t N>
inline constexpr bool is_array_type<std::array<T, N>> = true;

}  // namespace mixtape

template <mixtape::NamedEnum E>
struct fmt::formatter<E> : fmt::formatter<std::string_view> {
  auto format(E value, format_context& context) const {
    return fmt::formatter<std::string_view>::format(mixtape::name_of(value), context);
  }
};
