// DirectoryLock: one run at a time writes into an output directory. Held until the process ends, however it
// ends. A directory that was removed and made anew by another run has another lock file, which this run does
// not hold: before it writes by name it looks whether the place is still its own.
#pragma once

#include <filesystem>

namespace conclave {

class DirectoryLock {
 public:
  /// Creates the directory where it is missing. Fault::request when another process holds it, with that one's
  /// host, process id and start, or when the place cannot be written. Fault::machine where its file system
  /// knows no locks.
  explicit DirectoryLock(const std::filesystem::path& directory);
  ~DirectoryLock();
  DirectoryLock(const DirectoryLock&) = delete;
  DirectoryLock& operator=(const DirectoryLock&) = delete;

  /// Says whether the directory's lock file is the one that this run holds. From any thread.
  bool is_ours() const;
  /// Fault::machine, with the run that has the place now, where it is not.
  void check_ours() const;

 private:
  std::filesystem::path directory_;
  int file_ = -1;
};

}  // namespace conclave
