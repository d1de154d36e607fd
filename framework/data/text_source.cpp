#include "framework/data/text_source.h"

#include <algorithm>

namespace conclave {

bool TextSource::fill() {
  if (rest_.empty()) rest_ = stream_->next();
  return !rest_.empty();
}

void TextSource::advance(std::size_t bytes) {
  line_ += static_cast<std::size_t>(
      std::count(rest_.begin(), rest_.begin() + static_cast<std::ptrdiff_t>(bytes), '\n'));
  offset_ += bytes;
  rest_.remove_prefix(bytes);
}

bool TextSource::take_line(std::string& text) {
  bool any = false;
  while (fill()) {
    any = true;
    const std::size_t newline = rest_.find('\n');
    const bool whole = newline != std::string_view::npos;
    const std::size_t length = whole ? newline + 1 : rest_.size();
    text += rest_.substr(0, length);
    advance(length);
    if (whole) break;
  }
  return any;
}

void TextSource::take_all(std::string& text) {
  while (fill()) {
    text += rest_;
    advance(rest_.size());
  }
}

void TextSource::skip_byte_order_mark() {
  constexpr std::string_view mark = "\xEF\xBB\xBF";
  if (offset_ == 0 && fill() && rest_.starts_with(mark)) advance(mark.size());
}

std::optional<char> TextSource::peek() {
  return fill() ? std::optional(rest_.front()) : std::nullopt;
}

}  // namespace conclave
