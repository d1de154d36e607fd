// The printable characters in which tokenizer.json spells bytes: GPT-2's table (its encoder.py), as in the
// library `tokenizers`.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace conclave {

/// The bytes that a token of the vocabulary stands for, one for each character. Nothing when a character
/// stands for no byte. `token` is UTF-8.
std::optional<std::string> bytes_of_characters(std::string_view token);

/// The character of a byte, 0 to 255, as UTF-8.
std::string character_of_byte(int byte);

}  // namespace conclave
