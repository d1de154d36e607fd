#include "launch/tools/commands/written_files.h"

#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <system_error>

#include "framework/base/error.h"
#include "framework/data/files.h"

namespace conclave {
namespace fs = std::filesystem;

namespace {

void leave(int signal) {
  remove_unfinished_files();
  ::signal(signal, SIG_DFL);
  ::raise(signal);  // it comes when this function returns
}

}  // namespace

void refuse_foreign_file(const std::string& command, const fs::path& path, const std::string& own,
                         const std::function<bool(std::string_view)>& is_own) {
  std::error_code code;
  const fs::file_status status = fs::symlink_status(path, code);
  if (status.type() == fs::file_type::not_found) return;
  const auto refuse = [&](const auto&... what) {
    fail(Fault::request, command, ": ", path.string(), " ", what...,
         ", which would be lost; choose another name, or remove it first");
  };
  if (code) refuse("cannot be looked at (", code.message(), ") and may be a file");
  if (fs::is_symlink(status)) refuse("is a symbolic link");
  if (fs::is_directory(status)) refuse("is a folder");
  if (!fs::is_regular_file(status)) refuse("is no ordinary file");
  std::ifstream file(path, std::ios::binary);
  if (!file.is_open()) refuse("is there and cannot be read");
  std::string beginning(std::size_t{1} << 16, '\0');
  file.read(beginning.data(), static_cast<std::streamsize>(beginning.size()));
  beginning.resize(static_cast<std::size_t>(file.gcount()));
  if (!beginning.empty() && !is_own(beginning)) refuse("is there and is not ", own);
}

void check_writable(const std::string& command, const fs::path& path, MissingFolders folders) {
  std::error_code code;
  fs::path folder = fs::absolute(path / "").parent_path().parent_path();
  check(folders == MissingFolders::are_made || fs::is_directory(folder, code), Fault::request, command, ": ",
        path.string(), " cannot be written: the folder ", folder.string(), " is not there");
  while (!fs::exists(folder, code) && folder.has_relative_path()) folder = folder.parent_path();
  const bool writable = ::access(folder.c_str(), W_OK | X_OK) == 0;
  const int error = errno;
  check(fs::is_directory(folder, code), Fault::request, command, ": ", path.string(),
        " cannot be written: ", folder.string(), " is no folder");
  check(writable, Fault::request, command, ": ", path.string(), " cannot be written, as the folder ",
        folder.string(), " takes no new file: ", std::generic_category().message(error),
        "; choose another place");
}

UnfinishedFilesGuard::UnfinishedFilesGuard() {
  for (std::size_t i = 0; i < signals_.size(); ++i) {
    ::sigaction(signals_[i], nullptr, &before_[i]);
    if (before_[i].sa_handler == SIG_IGN) continue;
    struct ::sigaction action {};
    action.sa_handler = leave;
    ::sigaction(signals_[i], &action, nullptr);
  }
}

UnfinishedFilesGuard::~UnfinishedFilesGuard() {
  for (std::size_t i = 0; i < signals_.size(); ++i) ::sigaction(signals_[i], &before_[i], nullptr);
}

}  // namespace conclave
