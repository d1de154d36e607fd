// Words: the texts by which a recipe names the values of an enum class. They stand once, beside the enum:
//
//   enum class Colour { red, blue };
//   constexpr auto words_of(Colour) {
//     return std::array{Word{Colour::red, "red"}, Word{Colour::blue, "blue"}};
//   }
//
// A key then takes a pointer to such an enum and no list of words.
#pragma once

#include <array>
#include <optional>
#include <ostream>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace conclave {

template <class Enum>
struct Word {
  Enum value;
  const char* text;
};

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

/// A value of any enum with words, seen without its type.
class WordReference {
 public:
  template <HasWords Enum>
  WordReference(Enum* value) : value_(value), access_(&access<Enum>) {}

  std::vector<std::string> words() const { return access_->words(); }
  std::string word() const { return access_->get(value_); }
  /// False, and nothing is changed, where there is no such word.
  bool set(std::string_view word) const { return access_->set(value_, word); }

 private:
  struct Access {
    std::vector<std::string> (*words)();
    const char* (*get)(const void* value);
    bool (*set)(void* value, std::string_view word);
  };
  template <class Enum>
  static constexpr Access access = {
      [] {
        std::vector<std::string> words;
        for (const Word<Enum>& word : words_of(Enum{})) words.emplace_back(word.text);
        return words;
      },
      [](const void* value) { return word_of(*static_cast<const Enum*>(value)); },
      [](void* value, std::string_view word) {
        const std::optional<Enum> read = value_of_word<Enum>(word);
        if (read) *static_cast<Enum*>(value) = *read;
        return read.has_value();
      }};

  void* value_;
  const Access* access_;
};

}  // namespace conclave
