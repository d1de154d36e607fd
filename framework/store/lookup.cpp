#include "framework/store/lookup.h"

#include <system_error>

namespace conclave {
namespace fs = std::filesystem;

namespace {

fs::file_type type_of(const fs::path& path, Fault fault) {
  std::error_code code;
  const fs::file_type type = fs::status(path, code).type();  // "not found" is an answer, though with a code
  check(type != fs::file_type::none, fault, "Cannot look at ", path.string(), ": ", code.message(),
        ". Check the path and the permissions of its directories.");
  return type;
}

}  // namespace

bool is_there(const fs::path& path, Fault fault) {
  return type_of(path, fault) != fs::file_type::not_found;
}

bool is_directory_there(const fs::path& path, Fault fault) {
  return type_of(path, fault) == fs::file_type::directory;
}

bool is_same_file(const fs::path& one, const fs::path& other) {
  std::error_code code;
  return fs::equivalent(one, other, code) && !code;
}

std::vector<fs::path> entries_of(const fs::path& directory, Fault fault) {
  std::vector<fs::path> entries;
  if (!is_directory_there(directory, fault)) return entries;
  std::error_code code;
  for (fs::directory_iterator entry(directory, code); !code && entry != end(entry); entry.increment(code))
    entries.push_back(entry->path());
  check(!code, fault, "Cannot list the directory ", directory.string(), ": ", code.message(),
        ". Check its permissions.");
  return entries;
}

}  // namespace conclave
