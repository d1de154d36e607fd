// The four normal forms of Unicode (Standard Annex 15), by ICU.
#pragma once

#include <string>
#include <string_view>

namespace conclave {

enum class UnicodeForm { nfc, nfd, nfkc, nfkd };

/// `text` is valid UTF-8, and so is the result.
std::string normalize(std::string_view text, UnicodeForm form);

/// True where the character that `text` (valid UTF-8) ends or begins with is a word character. These are the
/// characters that `\w` means to Rust's `regex`. False for an empty text.
bool ends_with_word_character(std::string_view text);
bool starts_with_word_character(std::string_view text);
/// Bytes of white space (the Unicode property, as `\s` in Rust's `regex`) at the end and at the beginning.
std::size_t white_space_at_end(std::string_view text);
std::size_t white_space_at_start(std::string_view text);

}  // namespace conclave
