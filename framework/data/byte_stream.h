// A ByteStream is the content of a file, part after part. Content that gzip, Zstandard or xz have compressed
// is unpacked on the way. The first bytes decide that, whatever the file is called.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace conclave {

class ByteStream {
 public:
  virtual ~ByteStream() = default;
  /// The next part, which is there until the next call; empty at the end.
  virtual std::string_view next() = 0;
  /// Bytes of the file itself that have been used, for showing how far the reading is.
  virtual std::int64_t bytes_used() const = 0;
  virtual bool compressed() const = 0;
};

/// An archive or a table that only other programs open is a Fault::data that says which one it is.
std::unique_ptr<ByteStream> open_byte_stream(const std::string& path);

bool is_compressed(const std::string& path);

}  // namespace conclave
