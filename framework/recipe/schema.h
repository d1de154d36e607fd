// The schema: every key of a recipe described exactly once, with its meaning and its valid values. Reading,
// writing, checking and the listing of `conclave validate` are visitors of this one description. Rules here
// look at one key alone; what keys mean together is in recipe/validate.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <variant>
#include <vector>

#include "framework/recipe/recipe.h"

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
  std::vector<std::string> later{};  // texts that have a meaning, which this version does not provide yet
};

using ValueReference = std::variant<std::int64_t*, std::uint64_t*, double*, bool*, std::string*,
                                    std::vector<double>*, std::vector<std::string>*>;

struct Key {
  const char* name;
  ValueReference value;
  const char* meaning;
  Rule rule;
};

class Visitor;

/// A list of structs, seen without its element type.
class ListReference {
 public:
  virtual ~ListReference() = default;
  virtual std::size_t size() const = 0;
  virtual void clear() = 0;
  virtual void append() = 0;  // one element with every default
  virtual void describe_element(std::size_t index, Visitor& visitor) = 0;
  virtual void describe_default(Visitor& visitor) = 0;
};

class Visitor {
 public:
  virtual ~Visitor() = default;
  virtual void key(const Key& key) = 0;
  virtual void section(const char* name, const char* meaning, const std::function<void()>& inside) = 0;
  virtual void list(const char* name, const char* meaning, ListReference& list) = 0;
};

/// Shows every key of the recipe to the visitor, in the order in which a recipe is written.
void describe(Visitor& visitor, Recipe& recipe);

/// What is wrong with the key's value by its rule alone ("0 came, expected at least 1"), or "".
std::string complaint(const Key& key);

/// The value as YAML that reads back to exactly the same value.
std::string value_text(const ValueReference& value);
std::string value_text(const Key& key);

/// Names and paths become lines of logs, files and shell scripts, so they have none.
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
