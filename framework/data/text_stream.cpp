// All tokens are decoded anew each time, since some tokenizers look back (SentencePiece takes the first space
// away); beside a forward pass that is nothing.
#include "framework/data/text_stream.h"

#include <algorithm>

namespace conclave {
namespace {

constexpr std::string_view replacement = "\xEF\xBF\xBD";  // U+FFFD

/// Bytes that the next tokens cannot change. Not among them: a character's first bytes at the end, and
/// U+FFFD, which SentencePiece puts in their place.
std::size_t settled(std::string_view text) {
  while (text.ends_with(replacement)) text.remove_suffix(replacement.size());
  std::size_t tail = 0;  // continuation bytes at the end
  while (tail < std::min<std::size_t>(3, text.size()) &&
         (static_cast<unsigned char>(text[text.size() - 1 - tail]) & 0xC0) == 0x80)
    ++tail;
  if (tail == text.size()) return text.size();
  const auto first = static_cast<unsigned char>(text[text.size() - 1 - tail]);
  const std::size_t length = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : first >= 0xC0 ? 2 : 1;
  return length > tail + 1 ? text.size() - 1 - tail : text.size();
}

}  // namespace

std::string TextStream::push(std::span<const std::int32_t> tokens) {
  tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
  const std::string text = tokenizer_.decode(tokens_);
  const std::size_t end = settled(text), begin = handed_out_;
  if (end <= begin) return "";
  handed_out_ = end;
  return text.substr(begin, end - begin);
}

std::string TextStream::finish() {
  const std::string text = tokenizer_.decode(tokens_);
  const std::size_t begin = std::min(handed_out_, text.size());
  handed_out_ = text.size();
  return text.substr(begin);
}

}  // namespace conclave
