// The file that stands where a command is about to write: a command may replace only a file that it wrote
// itself.
#pragma once

#include <array>
#include <csignal>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>

namespace conclave {

/// Throws Fault::request where writing `path` would lose something: a folder, a link, a device, or a file
/// whose beginning `is_own` does not know. `own` names the files that `is_own` knows, for example "a page of
/// `conclave report`". The place may also be free, or hold an empty file.
void refuse_foreign_file(const std::string& command, const std::filesystem::path& path,
                         const std::string& own, const std::function<bool(std::string_view)>& is_own);

/// Throws Fault::request where nothing can be written at `path`: the nearest folder above it that is there is
/// no folder, or takes no new names. `folders` says whether the command makes missing folders.
enum class MissingFolders { are_made, are_refused };
void check_writable(const std::string& command, const std::filesystem::path& path, MissingFolders folders);

/// While it lives, SIGINT, SIGTERM and SIGHUP remove the OutputFiles that are not finished before they end
/// the process. A signal that is ignored stays ignored.
class UnfinishedFilesGuard {
 public:
  UnfinishedFilesGuard();
  UnfinishedFilesGuard(const UnfinishedFilesGuard&) = delete;
  UnfinishedFilesGuard& operator=(const UnfinishedFilesGuard&) = delete;
  ~UnfinishedFilesGuard();

 private:
  static constexpr std::array signals_ = {SIGINT, SIGTERM, SIGHUP};
  std::array<struct ::sigaction, signals_.size()> before_{};
};

}  // namespace conclave
