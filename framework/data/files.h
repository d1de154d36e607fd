// MappedFile: a whole file as bytes in memory, read on demand by the kernel.
// OutputFile: a file that appears under its name complete or not at all. Every failure is a sentence.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace conclave {

/// Read-only and move-only; an empty file gives empty bytes. `meaning` says in errors what the file is.
class MappedFile {
 public:
  MappedFile() = default;
  MappedFile(const std::string& path, std::string_view meaning);
  MappedFile(MappedFile&& other) noexcept { swap(other); }
  MappedFile& operator=(MappedFile&& other) noexcept {
    MappedFile taken(std::move(other));
    swap(taken);
    return *this;
  }
  ~MappedFile();

  std::string_view bytes() const { return {static_cast<const char*>(data_), size_}; }

 private:
  void swap(MappedFile& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
  }
  void* data_ = nullptr;
  std::size_t size_ = 0;
};

/// Writes to a temporary name beside `path`, whose folders it makes; publish() gives the file its name.
/// Destroyed before that, it leaves nothing behind. It removes what a killed process has left of the same
/// file.
class OutputFile {
 public:
  explicit OutputFile(std::string path);
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;
  ~OutputFile();

  void write(const void* bytes, std::size_t size);
  template <class Value>
  void put(const Value& value) {
    write(&value, sizeof value);
  }
  /// Everything written so far is on the disk; nothing may follow.
  void close();
  void publish();

 private:
  void flush();
  void open_temporary();
  std::string path_, temporary_;
  std::vector<char> buffer_;
  int descriptor_ = -1, lock_ = -1;  // of the same open file; the lock is held until the file has its name
  bool published_ = false;
};

/// Removes what this process has not finished of its OutputFiles. A signal handler that ends it may call
/// this.
void remove_unfinished_files() noexcept;

}  // namespace conclave
