// Words: the texts by which recipes and messages name the values of an enum class. They stand once, beside
// the enum:
//
//   enum class Colour { red, blue };
//   constexpr auto words_of(Colour) {
//     return std::array{Word{Colour::red, "red"}, Word{Colour::blue, "blue"}};
//   }
//
// A key of a recipe takes a pointer to such an enum and no list of words.
#pragma once

#include <array>
#include <optional>
#include <ostream>
#include <string_view>
#include <type_traits>

namespace conclave {

template <class Enum>
struct Word {
  Enum value;
  const char* text;
};
template <class Enum>
Word(Enum, const char*) -> Word<Enum>;  // clang finds it by itself from version 17 on

template <class Enum>
concept HasWords = std::is_enum_v<Enum> && requires(Enum value) {
  words_of(value);
};

/// "" for a value that has no word.
template <HasWords Enum>
constexpr const char* word_of(Enum value) {
  for (const Word<Enum>& word : words_of(value))
    if (word.value == value) return word.text;
  return "";
}

template <HasWords Enum>
std::optional<Enum> value_of_word(std::string_view text) {
  for (const Word<Enum>& word : words_of(Enum{}))
    if (word.text == text) return word.value;
  return {};
}

template <HasWords Enum>
std::ostream& operator<<(std::ostream& out, Enum value) {
  return out << word_of(value);
}

}  // namespace conclave
