#include "framework/data/tokenizer_json/byte_alphabet.h"

#include <algorithm>
#include <array>

namespace conclave {
namespace {

/// From code point to byte, -1 where it stands for none. Printable bytes are their own character, the others
/// are counted through from U+0100.
constexpr std::array<int, 512> byte_of = [] {
  std::array<int, 512> table{};
  table.fill(-1);
  int next = 256;
  for (int byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte != 0xAD);
    table[static_cast<std::size_t>(printable ? byte : next++)] = byte;
  }
  return table;
}();

}  // namespace

std::optional<std::string> bytes_of_characters(std::string_view token) {
  std::string bytes;
  for (std::size_t i = 0; i < token.size(); ++i) {
    std::size_t code = static_cast<unsigned char>(token[i]);
    if (code >= 0x80) {  // all characters of the table have at most two bytes in UTF-8
      if (code >= 0xE0 || i + 1 >= token.size()) return std::nullopt;
      code = (code & 0x1F) << 6 | (static_cast<unsigned char>(token[++i]) & 0x3F);
    }
    if (code >= byte_of.size() || byte_of[code] < 0) return std::nullopt;
    bytes.push_back(static_cast<char>(byte_of[code]));
  }
  return bytes;
}

std::string character_of_byte(int byte) {
  const auto code = std::find(byte_of.begin(), byte_of.end(), byte) - byte_of.begin();
  if (code < 0x80) return {static_cast<char>(code)};
  return {static_cast<char>(0xC0 | code >> 6), static_cast<char>(0x80 | (code & 0x3F))};
}

}  // namespace conclave
