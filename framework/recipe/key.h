// A Key is one value of a recipe with its name, its meaning and its rule. A rule looks at one key alone;
// requirements.h tells what keys mean together.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "framework/base/words.h"

namespace conclave {

/// The valid values of one key.
struct Rule {
  double least = -std::numeric_limits<double>::infinity();
  double most = std::numeric_limits<double>::infinity();
  bool least_excluded = false;
  bool most_excluded = false;
  bool filled = false;               // a text, or a list of texts, that must not be empty
  bool one_line = false;             // a text without a line break
  std::vector<std::string> words{};  // the only valid texts; empty: any
  std::string infinity_word{};       // a number may be this word too, which stands for infinity; empty: none
};

/// Sizes stay below 2^31: token ids, rows and columns are 32-bit in files and kernels.
constexpr double largest_size = 2147483647.0;
/// Steps stay below 2^53, so that they are exact in a double and in every JSON reader.
constexpr double largest_count = 9007199254740992.0;

inline Rule size() {
  return {.least = 1, .most = largest_size};
}
inline Rule size_or_zero() {
  return {.least = 0, .most = largest_size};
}
inline Rule count() {
  return {.least = 1, .most = largest_count};
}
inline Rule count_or_zero() {
  return {.least = 0, .most = largest_count};
}
inline Rule at_least(double least) {
  return {.least = least};
}
inline Rule above(double least) {
  return {.least = least, .least_excluded = true};
}
inline Rule between(double least, double most) {
  return {.least = least, .most = most};
}
inline Rule filled() {
  return {.filled = true};
}
/// The rule of a name or a path.
inline Rule filled_line() {
  return {.filled = true, .one_line = true};
}
/// The rule of a text; an enum class has its words beside it.
inline Rule one_of(std::vector<std::string> words) {
  return {.words = std::move(words)};
}

/// A value of any enum with words, seen without its type.
class WordReference {
 public:
  template <HasWords Enum>
  WordReference(Enum* value) : value_(value), access_(&access<Enum>) {}

  std::vector<std::string> words() const { return access_->words(); }
  std::string word() const { return access_->get(value_); }
  /// Returns false and changes nothing where there is no such word.
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

using ValueReference =
    std::variant<std::int64_t*, std::uint64_t*, double*, bool*, std::string*, std::vector<std::int64_t>*,
                 std::vector<double>*, std::vector<std::string>*, WordReference>;

/// Saved says which numbers of a saved run depend on a key for their meaning. Under another value of the key
/// the same numbers are something else.
enum class Saved {
  nothing,
  weights,  // the same weights are another model
  counts,   // a position in the data counts other pieces of text
};

/// KeyFacts hold what is known of a key beside its values.
struct KeyFacts {
  std::vector<std::string> other_names{};  // in other trainers, where letters alone do not lead to this one
  Saved gives_meaning_to = Saved::nothing;
};

struct Key {
  const char* name;
  ValueReference value;
  const char* meaning;
  Rule rule{};
  KeyFacts facts{};
};

/// The complaint about the key's value by its rule alone ("0 came, expected at least 1"), or "".
std::string complaint(const Key& key);

/// The complaint about a text that came, beside the only valid words.
std::string word_complaint(const std::string& text, const std::vector<std::string>& words);

/// The only valid texts of a key, where they are few: its words, "true" and "false", or the word that stands
/// for infinity.
std::vector<std::string> valid_words(const Key& key);

/// The value as YAML that reads back to exactly the same value.
std::string value_text(const ValueReference& value);
std::string value_text(const Key& key);

/// True where the text has a line break. Names and paths become lines of logs, files and shell scripts, so
/// they have none.
bool has_line_break(const std::string& text);

/// The text as a YAML scalar, in quotes where it would be read as something else.
std::string quoted_text(const std::string& text);

/// The shortest text that reads back to exactly the same number.
std::string number_text(double number);

/// "a whole number", "true or false", ...
const char* type_text(const ValueReference& value);
std::string type_text(const Key& key);

/// "data.train" and "path" give "data.train.path"; the path of the root is "".
std::string join_path(const std::string& path, const std::string& name);

}  // namespace conclave
