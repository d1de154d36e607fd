// TextSource: the text of a file by lines or by letters, unpacked where the file is compressed. Memory holds
// one part of the file.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "framework/data/byte_stream.h"

namespace conclave {

class TextSource {
 public:
  explicit TextSource(const std::string& path) : stream_(open_byte_stream(path)) {}

  /// Adds what is left of the line, through its newline, to `text`; false at the end.
  bool take_line(std::string& text);
  void take_all(std::string& text);
  /// The next byte stays where it is; nothing at the end.
  std::optional<char> peek();
  void skip() { advance(1); }
  /// Skips the mark that some editors put before UTF-8 text, which is no letter of it.
  void skip_byte_order_mark();

  std::size_t offset() const { return offset_; }  // of the next byte in the text
  std::size_t line() const { return line_; }      // of the next byte, from 1
  std::int64_t bytes_used() const { return stream_->bytes_used() - static_cast<std::int64_t>(unread()); }
  bool compressed() const { return stream_->compressed(); }

 private:
  bool fill();
  void advance(std::size_t bytes);
  /// Bytes of a part that is not compressed which are still to be taken.
  std::size_t unread() const { return stream_->compressed() ? 0 : rest_.size(); }

  std::unique_ptr<ByteStream> stream_;
  std::string_view rest_;  // of the stream's part
  std::size_t offset_ = 0, line_ = 1;
};

}  // namespace conclave
