// DirectoryLock: one run at a time writes into an output directory. The lock is held until the process ends,
// however it ends. A directory that was removed and made anew by another run has another lock file, which
// this run does not hold. So before it writes by name, a run looks whether the place is still its own.
#pragma once

#include <filesystem>

namespace conclave {

class DirectoryLock {
 public:
  /// Creates the directory where it is missing. Throws Fault::request when the place cannot be written, or
  /// when another process holds it, with that one's host, process id and start. Throws Fault::machine where
  /// its file system knows no locks.
  explicit DirectoryLock(const std::filesystem::path& directory);
  ~DirectoryLock();
  DirectoryLock(const DirectoryLock&) = delete;
  DirectoryLock& operator=(const DirectoryLock&) = delete;

  /// Says whether the directory's lock file is the one that this run holds. It may be called from any thread.
  bool is_ours() const;
  /// Throws Fault::machine where it is not, with the run that has the place now.
  void check_ours() const;

 private:
  std::filesystem::path directory_;
  int file_ = -1;
};

}  // namespace conclave
