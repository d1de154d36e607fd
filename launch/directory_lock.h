// DirectoryLock: one run at a time writes into an output directory. Held until the process ends, however it
// ends.
#pragma once

#include <filesystem>

namespace conclave {

class DirectoryLock {
 public:
  /// Creates the directory where it is missing. Fault::request when another process holds it, with that one's
  /// host, process id and start, or when the place cannot be written.
  explicit DirectoryLock(const std::filesystem::path& directory);
  ~DirectoryLock();
  DirectoryLock(const DirectoryLock&) = delete;
  DirectoryLock& operator=(const DirectoryLock&) = delete;

 private:
  int file_ = -1;
};

}  // namespace conclave
