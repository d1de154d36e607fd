#include "framework/recipe/key.h"

#include <array>
#include <charconv>
#include <cmath>
#include <limits>

#include "framework/base/error.h"
#include "framework/recipe/nearest.h"

namespace conclave {
namespace {

std::string range_text(const Rule& rule) {
  const bool lower = std::isfinite(rule.least), upper = std::isfinite(rule.most);
  std::string text;
  if (lower) text += (rule.least_excluded ? "more than " : "at least ") + number_text(rule.least);
  if (lower && upper) text += " and ";
  if (upper) text += (rule.most_excluded ? "less than " : "at most ") + number_text(rule.most);
  return text;
}

std::string number_complaint(double number, const std::string& text, const Rule& rule) {
  if (!std::isfinite(number)) return text + " came, expected a finite number";
  const bool low = rule.least_excluded ? number <= rule.least : number < rule.least;
  const bool high = rule.most_excluded ? number >= rule.most : number > rule.most;
  return low || high ? text + " came, expected " + range_text(rule) : "";
}

/// Most of a run is computed in fp32, where such a number is zero, is held with few digits, or is infinite.
std::string real_complaint(double number, const Rule& rule) {
  using Single = std::numeric_limits<float>;
  const std::string wrong = number_complaint(number, number_text(number), rule);
  const double size = std::abs(number), least = static_cast<double>(Single::min()),
               most = static_cast<double>(Single::max());
  if (!wrong.empty() || number == 0 || (size >= least && size <= most)) return wrong;
  return number_text(number) + " came, expected " +
         (size < least ? "at least " + number_text(least) + ", the smallest number that fp32 holds in full"
                       : "at most " + number_text(most) + ", the largest number of fp32");
}

std::string text_complaint(const std::string& text, const Rule& rule) {
  if (rule.one_line && has_line_break(text))
    return quoted_text(text) + " came, expected a text without a line break";
  if (rule.filled && text.empty()) return "an empty text came, expected one that is not empty";
  return rule.words.empty() ? "" : word_complaint(text, rule.words);
}

template <class... Cases>
struct Overloaded : Cases... {
  using Cases::operator()...;
};
template <class... Cases>
Overloaded(Cases...) -> Overloaded<Cases...>;

}  // namespace

bool has_line_break(const std::string& text) {
  return text.find_first_of("\n\r") != std::string::npos;
}

std::string word_complaint(const std::string& text, const std::vector<std::string>& words) {
  for (const std::string& word : words)
    if (word == text) return "";
  const std::string near = nearest(text, words);
  return "'" + text + "' came, expected one of " + join_words(words) +
         (near.empty() ? "" : "; did you mean '" + near + "'?");
}

std::vector<std::string> valid_words(const Key& key) {
  if (const auto* word = std::get_if<WordReference>(&key.value)) return word->words();
  if (std::holds_alternative<bool*>(key.value)) return {"true", "false"};
  if (!key.rule.infinity_word.empty()) return {key.rule.infinity_word};
  return std::holds_alternative<std::string*>(key.value) ? key.rule.words : std::vector<std::string>{};
}

std::string complaint(const Key& key) {
  return std::visit(
      Overloaded{
          [&](const bool*) { return std::string(); },
          [&](const std::string* text) { return text_complaint(*text, key.rule); },
          [&](const WordReference& word) { return word_complaint(word.word(), word.words()); },
          [&](const std::vector<std::int64_t>* wholes) {
            for (const std::int64_t whole : *wholes) {
              const std::string wrong =
                  number_complaint(static_cast<double>(whole), std::to_string(whole), key.rule);
              if (!wrong.empty()) return wrong;
            }
            return std::string();
          },
          [&](const std::vector<double>* numbers) {
            for (const double number : *numbers) {
              const std::string wrong = real_complaint(number, key.rule);
              if (!wrong.empty()) return wrong;
            }
            return std::string();
          },
          [&](const std::vector<std::string>* texts) {
            if (key.rule.filled && texts->empty())
              return std::string("an empty list came, expected at least one text");
            for (const std::string& text : *texts) {
              const std::string wrong = text_complaint(text, key.rule);
              if (!wrong.empty()) return wrong;
            }
            return std::string();
          },
          [&](const double* number) {
            if (*number == std::numeric_limits<double>::infinity() && !key.rule.infinity_word.empty())
              return std::string();
            return real_complaint(*number, key.rule);
          },
          [&](const auto* whole) {
            return number_complaint(static_cast<double>(*whole), std::to_string(*whole), key.rule);
          },
      },
      key.value);
}

std::string number_text(double number) {
  if (std::abs(number) < 0x1.0p53 && number == std::trunc(number) && !(number == 0 && std::signbit(number)))
    return std::to_string(static_cast<std::int64_t>(number));  // 10000, where the shortest text is 1e+04
  std::array<char, 32> buffer;
  const auto [end, status] = std::to_chars(buffer.data(), buffer.data() + buffer.size(), number);
  check(status == std::errc(), "number_text: a double needs more than 32 characters");
  return std::string(buffer.data(), end);
}

std::string quoted_text(const std::string& text) {
  const auto letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); };
  bool plain = !text.empty() && (letter(text[0]) || text[0] == '/');
  std::string lower;
  for (const char c : text) {
    plain = plain && (letter(c) || (c >= '0' && c <= '9') || c == '_' || c == '/' || c == '.' || c == '-');
    lower += static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
  }
  for (const char* word : {"true", "false", "yes", "no", "on", "off", "null", "y", "n", "nan", "inf"})
    plain = plain && lower != word;
  if (plain) return text;

  std::string quoted = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      quoted += std::string("\\") + c;
    } else if (byte < 0x20 || byte == 0x7f) {
      constexpr char digits[] = "0123456789abcdef";
      quoted += std::string("\\x") + digits[byte >> 4] + digits[byte & 15];
    } else {
      quoted += c;
    }
  }
  return quoted + "\"";
}

std::string value_text(const ValueReference& value) {
  return std::visit(Overloaded{
                        [](const bool* truth) { return std::string(*truth ? "true" : "false"); },
                        [](const std::string* text) { return quoted_text(*text); },
                        [](const WordReference& word) { return quoted_text(word.word()); },
                        [](const double* number) { return number_text(*number); },
                        [](const std::vector<std::int64_t>* wholes) {
                          std::vector<std::string> texts;
                          for (const std::int64_t whole : *wholes) texts.push_back(std::to_string(whole));
                          return join_text("[", join_words(texts), "]");
                        },
                        [](const std::vector<double>* numbers) {
                          std::vector<std::string> texts;
                          for (const double number : *numbers) texts.push_back(number_text(number));
                          return join_text("[", join_words(texts), "]");
                        },
                        [](const std::vector<std::string>* texts) {
                          std::vector<std::string> quoted;
                          for (const std::string& text : *texts) quoted.push_back(quoted_text(text));
                          return join_text("[", join_words(quoted), "]");
                        },
                        [](const auto* whole) { return std::to_string(*whole); },
                    },
                    value);
}

std::string value_text(const Key& key) {
  const auto* number = std::get_if<double*>(&key.value);
  const bool word = number != nullptr && std::isinf(**number) && !key.rule.infinity_word.empty();
  return word ? key.rule.infinity_word : value_text(key.value);
}

std::string type_text(const Key& key) {
  const std::string& word = key.rule.infinity_word;
  return type_text(key.value) + (word.empty() ? "" : " or '" + word + "'");
}

const char* type_text(const ValueReference& value) {
  constexpr const char* texts[] = {
      "a whole number", "a whole number, zero or more", "a number",          "true or false",
      "a text",         "a list of whole numbers",      "a list of numbers", "a list of texts",
      "a text"};
  static_assert(std::size(texts) == std::variant_size_v<ValueReference>);
  return texts[value.index()];
}

std::string join_path(const std::string& path, const std::string& name) {
  return path.empty() ? name : path + "." + name;
}

}  // namespace conclave
