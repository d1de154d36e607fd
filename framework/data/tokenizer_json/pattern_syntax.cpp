// One pass over the pattern, which copies what means the same and spells out what does not.
#include "framework/data/tokenizer_json/pattern_syntax.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cstdint>
#include <optional>
#include <vector>

#include "framework/base/error.h"

namespace conclave {
namespace {

// PCRE2's own \s also has U+180E, which has not been white space since Unicode 6.3.
constexpr const char* white_space =
    R"(\x{9}-\x{d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
constexpr const char* not_white_space =
    R"(\x{0}-\x{8}\x{e}-\x{1f}\x{21}-\x{84}\x{86}-\x{9f}\x{a1}-\x{167f}\x{1681}-\x{1fff}\x{200b}-\x{2027})"
    R"(\x{202a}-\x{202e}\x{2030}-\x{205e}\x{2060}-\x{2fff}\x{3001}-\x{d7ff}\x{e000}-\x{10ffff})";
constexpr const char* word = R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc})";
// Outside of sets, Oniguruma's \w also has the other numbers of Latin-1: its table for those characters does.
constexpr const char* word_outside_sets = R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\x{b2}\x{b3}\x{b9}\x{bc}-\x{be})";
constexpr const char* hexadecimal = "0-9a-fA-F";

constexpr std::array categories = {"L",  "Lu", "Ll", "Lt", "Lm", "Lo", "M",  "Mn", "Mc", "Me", "N",  "Nd",
                                   "Nl", "No", "P",  "Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "S",  "Sm",
                                   "Sc", "Sk", "So", "Z",  "Zs", "Zl", "Zp", "C",  "Cc", "Cf", "Co", "Cn"};
constexpr std::array scripts = {"Arabic", "Armenian",  "Bengali",   "Cyrillic", "Devanagari", "Ethiopic",
                                "Greek",  "Georgian",  "Gujarati",  "Gurmukhi", "Han",        "Hangul",
                                "Hebrew", "Hiragana",  "Kannada",   "Katakana", "Khmer",      "Lao",
                                "Latin",  "Malayalam", "Mongolian", "Myanmar",  "Sinhala",    "Tamil",
                                "Telugu", "Thai",      "Tibetan"};

bool contains(const auto& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

std::string escaped(char32_t code) {
  if (code < 0x80 && std::isalnum(static_cast<int>(code))) return {static_cast<char>(code)};
  return join_text("\\x{", std::hex, static_cast<std::uint32_t>(code), "}");
}

class Translation {
 public:
  Translation(std::string_view pattern, const std::string& where) : pattern_(pattern), where_(where) {}

  std::string run() {
    while (!at_end()) term();
    if (!groups_.empty()) refuse("a group that is not closed");
    return std::move(out_);
  }

 private:
  struct Group {
    bool ignore_case, looks_around;
  };

  [[noreturn]] void refuse(const std::string& what) const {
    fail(Fault::data, where_, ": the regular expression ", pattern_, " has ", what, " before offset ", at_,
         ", which Conclave does not read; spell it another way");
  }

  bool at_end() const { return at_ >= pattern_.size(); }
  bool follows(std::string_view text) const { return pattern_.substr(at_).starts_with(text); }
  bool take(std::string_view text) {
    if (!follows(text)) return false;
    at_ += text.size();
    return true;
  }

  /// The pattern is valid UTF-8, as all text of a JSON file.
  char32_t take_character() {
    if (at_end()) refuse("nothing where a character is expected");
    const auto first = static_cast<unsigned char>(pattern_[at_++]);
    if (first < 0x80) return first;
    char32_t code = first >= 0xF0 ? first & 0x07 : first >= 0xE0 ? first & 0x0F : first & 0x1F;
    while (!at_end() && (static_cast<unsigned char>(pattern_[at_]) & 0xC0) == 0x80)
      code = code << 6 | (static_cast<unsigned char>(pattern_[at_++]) & 0x3F);
    return code;
  }

  void term() {
    if (follows("*") || follows("+") || follows("?")) return repetition(pattern_.substr(at_++, 1), true);
    if (follows("{") && interval()) return;
    if (take("(")) return open_group();
    if (take(")")) return close_group();
    if (take("[")) return atom("[" + set() + "]");
    if (take(".")) return atom(".");
    if (follows("^") || follows("$")) return anchor(std::string(1, pattern_[at_++]));
    if (take("|")) return anchor("|");
    if (take("\\")) return escape();
    literal(take_character());
  }

  void atom(const std::string& text) {
    out_ += text;
    repeatable_ = true;
    letter_ = 0;
  }
  void anchor(const std::string& text) {
    atom(text);
    repeatable_ = false;
  }

  void literal(char32_t code) {
    const char32_t before = letter_;
    check_case(code, "");
    atom(escaped(code));
    if (!ignore_case_) return;
    // Full case folding, which Oniguruma has and PCRE2 has not, knows ligatures: "ss" matches U+00DF.
    letter_ = code < 0x80 ? static_cast<char32_t>(std::tolower(static_cast<int>(code))) : 0;
    if ((before == 'f' && (letter_ == 'f' || letter_ == 'i' || letter_ == 'l')) ||
        (before == 's' && (letter_ == 's' || letter_ == 't')))
      refuse("letters that may be a ligature where case is ignored");
  }

  void check_case(char32_t code, const std::string& category) const {
    if (!ignore_case_) return;
    if (code >= 0x80) refuse("a character beyond ASCII where case is ignored");
    if (category == "Lu" || category == "Ll" || category == "Lt")
      refuse("\\p{" + category + "} where case is ignored");
  }

  void repetition(std::string_view text, bool may_be_possessive) {
    if (!repeatable_) refuse("a repetition of nothing or of a repetition");
    out_ += text;
    repeatable_ = false;
    letter_ = 0;
    if (take("?")) {
      out_ += "?";
    } else if (follows("+")) {
      ++at_;
      if (!may_be_possessive) refuse("{...}+, a repetition of a repetition");
      out_ += "+";
    }
  }

  /// {n}, {n,}, {n,m} or {,m}; false, and nothing is taken, for any other brace, which stands for itself.
  bool interval() {
    std::size_t end = at_ + 1;
    const auto digits = [&] {
      const std::size_t begin = end;
      while (end < pattern_.size() && pattern_[end] >= '0' && pattern_[end] <= '9') ++end;
      return std::string(pattern_.substr(begin, end - begin));
    };
    std::string least = digits(), most;
    const bool comma = end < pattern_.size() && pattern_[end] == ',';
    if (comma) {
      ++end;
      most = digits();
    }
    if (end >= pattern_.size() || pattern_[end] != '}' || (least.empty() && most.empty())) return false;
    at_ = end + 1;
    if (least.size() > 5 || most.size() > 5 ||
        (!most.empty() && !least.empty() && std::stoi(least) > std::stoi(most)))
      refuse("{" + least + "," + most + "}");
    if (!comma && follows("?")) refuse("{n}?");
    if (least.empty()) least = "0";
    repetition("{" + least + (comma ? "," : "") + most + "}", false);
    return true;
  }

  void open_group() {
    Group group{ignore_case_, false};
    std::string opening = "(?:";  // nothing refers back to a group, so none is numbered
    if (take("?i)")) {
      if (!out_.empty()) refuse("(?i) that is not at the beginning");
      ignore_case_ = true;
      out_ = "(?i)";
      return;
    }
    if (take("?i:")) {
      opening = "(?i:";
      ignore_case_ = true;
    } else if (take("?-i:")) {
      opening = "(?-i:";
      ignore_case_ = false;
    } else if (take("?:")) {
    } else if (follows("?=") || follows("?!") || follows("?<=") || follows("?<!") || follows("?>")) {
      const std::size_t length = follows("?<") ? 3 : 2;
      opening = "(" + std::string(pattern_.substr(at_, length));
      group.looks_around = opening != "(?>";
      at_ += length;
    } else if (follows("?") || follows("*")) {
      refuse("the group (" + std::string(pattern_.substr(at_, 2)));
    }
    if (groups_.size() >= 50) refuse("groups nested 50 deep");
    groups_.push_back(group);
    anchor(opening);
  }

  void close_group() {
    if (groups_.empty()) refuse("a ) without its (");
    atom(")");
    repeatable_ = !groups_.back().looks_around;
    ignore_case_ = groups_.back().ignore_case;
    groups_.pop_back();
  }

  void escape() {
    if (follows("A") || follows("z") || follows("Z")) return anchor("\\" + std::string(1, pattern_[at_++]));
    if (take("w")) return atom(join_text("[", word_outside_sets, "]"));
    if (const auto members = class_escape()) return atom("[" + *members + "]");
    literal(character_escape());
  }

  /// The members of \p{...}, \s and their kind, as they stand within brackets.
  std::optional<std::string> class_escape() {
    if (follows("p{") || follows("P{")) return property();
    if (take("d")) return "\\p{Nd}";
    if (take("D")) return "\\P{Nd}";
    if (take("s")) return white_space;
    if (take("S")) return not_white_space;
    if (take("w")) return word;
    if (take("h")) return hexadecimal;
    return std::nullopt;
  }

  std::string property() {
    bool negated = pattern_[at_] == 'P';
    at_ += 2;
    if (take("^")) negated = !negated;
    const std::size_t end = std::min(pattern_.find('}', at_), pattern_.size());
    const std::string name(pattern_.substr(at_, end - at_));
    at_ = std::min(end + 1, pattern_.size());
    check_case(0, name);
    const std::string letter = negated ? "\\P{" : "\\p{";
    if (contains(categories, name)) return letter + name + "}";
    if (contains(scripts, name)) return letter + "sc:" + name + "}";
    refuse("the property " + name);
  }

  /// After a backslash: one character.
  char32_t character_escape() {
    const std::size_t begin = at_;
    const char32_t code = take_character();
    switch (code) {
      case 't':
        return '\t';
      case 'n':
        return '\n';
      case 'v':
        return '\v';
      case 'f':
        return '\f';
      case 'r':
        return '\r';
      case 'a':
        return '\a';
      case 'e':
        return 0x1B;
      case 'x':
        return follows("{") ? braced_code() : hexadecimal_code(2, 0x7F);
      case 'u':
        return hexadecimal_code(4, 0xFFFF);
      default:
        break;
    }
    if (code < 0x80 && std::isalnum(static_cast<int>(code)))
      refuse("the escape \\" + std::string(pattern_.substr(begin, at_ - begin)));
    return code;
  }

  char32_t hexadecimal_code(std::size_t digits, char32_t most) {
    char32_t code = 0;
    for (std::size_t i = 0; i < digits; ++i) {
      const char32_t digit = take_character();
      if (digit >= 0x80 || !std::isxdigit(static_cast<int>(digit))) refuse("an escape with too few digits");
      code = code * 16 + (digit <= '9' ? digit - '0' : (digit | 0x20) - 'a' + 10);
    }
    return checked(code, most);
  }

  char32_t braced_code() {
    const std::size_t begin = ++at_, end = pattern_.find('}', at_);
    if (end == std::string_view::npos || end == begin || end - begin > 6)
      refuse("an escape \\x{...} of no use");
    const char32_t code = hexadecimal_code(end - begin, 0x10FFFF);
    ++at_;
    return code;
  }

  char32_t checked(char32_t code, char32_t most) const {
    if (code > most || (code >= 0xD800 && code <= 0xDFFF)) refuse("an escape that is no character");
    return code;
  }

  /// After an opening bracket: the members as PCRE2 has them, `^` before them where they are negated. A set
  /// within a set is their union, which needs no brackets.
  std::string set(bool inner = false) {
    std::string members;
    if (take("^")) {
      if (inner) refuse("a negated set within a set");
      members = "^";
    }
    if (follows("]")) refuse("an empty set, or one that begins with ]");
    bool after_class = false;
    while (!take("]")) {
      if (at_end()) refuse("a set that is not closed");
      if (follows("&&")) refuse("an intersection (&&)");
      if (follows("[:")) refuse("a POSIX bracket");
      if (after_class && follows("-") && !follows("-]")) refuse("a range that begins with a class");
      after_class = true;
      if (take("[")) {
        if (++nested_sets_ > 50) refuse("sets nested 50 deep");
        members += set(true);
        continue;
      }
      const bool backslash = take("\\");
      if (backslash) {
        if (const auto escape = class_escape()) {
          members += *escape;
          continue;
        }
      }
      after_class = false;
      const char32_t low = member(backslash);
      members += escaped(low);
      if (!follows("-") || follows("-]")) continue;
      ++at_;
      if (follows("[")) refuse("a range that ends with a set");
      const bool high_backslash = take("\\");
      if (high_backslash && class_escape()) refuse("a range that ends with a class");
      const char32_t high = member(high_backslash);
      if (high < low) refuse("a range from a greater to a lesser character");
      members += "-" + escaped(high);
      after_class = true;
    }
    return members;
  }

  char32_t member(bool backslash) {
    const char32_t code = !backslash ? take_character() : take("b") ? U'\b' : character_escape();
    check_case(code, "");
    return code;
  }

  std::string_view pattern_;
  const std::string& where_;
  std::size_t at_ = 0;
  std::string out_;
  std::vector<Group> groups_;
  bool repeatable_ = false, ignore_case_ = false;
  char32_t letter_ = 0;  // the literal before, where case is ignored
  int nested_sets_ = 0;
};

}  // namespace

std::string pcre2_pattern(std::string_view oniguruma, const std::string& where) {
  return Translation(oniguruma, where).run();
}

std::string pcre2_literal(std::string_view text) {
  std::string pattern;
  for (const char byte : text) {
    if (static_cast<signed char>(byte) >= 0 && !std::isalnum(static_cast<unsigned char>(byte)))
      pattern += escaped(static_cast<unsigned char>(byte));
    else
      pattern += byte;
  }
  return pattern;
}

}  // namespace conclave
