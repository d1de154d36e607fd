// The regular expressions of tokenizer.json are Oniguruma's; here they become PCRE2's with the same matches.
// A construct that is rare, or would match differently there, is refused by name. These are back references,
// word boundaries, POSIX brackets, intersections (&&), negated classes within classes and repetitions of
// repetitions.
#pragma once

#include <string>
#include <string_view>

namespace conclave {

/// The result is for PCRE2_UTF with PCRE2_MULTILINE, since `^` and `$` are Oniguruma's line ends. `where`
/// begins the sentence of an Error of Fault::data. Characters are those of doc/RE of Oniguruma 6.9: `\s` is
/// White_Space, `\w` Alphabetic, marks, decimal digits and connectors, `\d` decimal digits, `\h` hexadecimal
/// digits.
std::string pcre2_pattern(std::string_view oniguruma, const std::string& where);

/// A pattern that matches exactly this text.
std::string pcre2_literal(std::string_view text);

}  // namespace conclave
