// RandomFile reads parts of a file when they are asked for. Unlike a mapped file, a file that is cut short or
// lost while it is in use gives a sentence and not a signal.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace conclave {

/// Move-only. `meaning` says in errors what the file is. Several threads may read at once.
class RandomFile {
 public:
  RandomFile() = default;
  /// Fault::data where there is no such regular file.
  RandomFile(const std::string& path, std::string_view meaning);
  RandomFile(RandomFile&& other) noexcept { swap(other); }
  RandomFile& operator=(RandomFile&& other) noexcept {
    RandomFile taken(std::move(other));
    swap(taken);
    return *this;
  }
  ~RandomFile();

  /// The size at the time of opening.
  std::int64_t size() const { return size_; }
  /// Reads all of the bytes. A file that has become shorter is a Fault::data, a disk that fails a
  /// Fault::machine.
  void read(std::int64_t offset, std::int64_t bytes, void* out) const;

 private:
  void swap(RandomFile& other) noexcept {
    std::swap(name_, other.name_);
    std::swap(descriptor_, other.descriptor_);
    std::swap(size_, other.size_);
  }
  std::string name_;  // its meaning and path
  int descriptor_ = -1;
  std::int64_t size_ = 0;
};

}  // namespace conclave
