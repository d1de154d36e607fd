// The table of entries, and what all of them share.
#include "tests/fuzz/entries.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <filesystem>
#include <stdexcept>

#include "framework/base/error.h"

namespace conclave::fuzz {
namespace {

/// Removed when the process ends in order; tests/fuzz/run.sh removes what a crash leaves.
struct Folder {
  Folder() {
    std::string name = (std::filesystem::temp_directory_path() / "conclave-fuzz-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("no temporary folder can be made");
    path = name;
  }
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
  std::filesystem::path path;
};

}  // namespace

const std::vector<Entry>& entries() {
  static const std::vector<Entry> all = {
      {"recipe", run_recipe},
      {"overrides", run_overrides},
      {"token_file", run_token_file},
      {"token_description", run_token_description},
      {"data_position", run_data_position},
      {"documents", run_documents},
      {"tokenizer", run_tokenizer},
      {"tokenizer_json", run_tokenizer_json},
      {"metrics", run_metrics},
      {"expert_history", run_expert_history},
      {"manifest", run_manifest},
      {"shard_table", run_shard_table},
      {"checkpoint", run_checkpoint},
      {"checkpoint_index", run_checkpoint_index},
      {"safetensors", run_safetensors},
      {"expert_history_bytes", run_expert_history_bytes},
  };
  return all;
}

void value_or_error(const std::function<void()>& load) {
  try {
    load();
  } catch (const Error& error) {
    if (error.fault() != Fault::data && error.fault() != Fault::request && error.fault() != Fault::numeric)
      throw;
    promise(*error.what() != '\0', "an Error says something");
  }
}

void promise(bool holds, const char* what) {
  if (!holds) throw std::logic_error(what);
}

std::string file_with(const std::string& name, std::string_view bytes) {
  static const Folder folder;
  const std::string path = (folder.path / name).string();
  if (name.find('/') != std::string::npos)
    std::filesystem::create_directories(std::filesystem::path(path).parent_path());
  const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  const bool written =
      file >= 0 && ::write(file, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size());
  const bool closed = file >= 0 && ::close(file) == 0;
  if (!written || !closed) throw std::runtime_error("the input cannot be written to " + path);
  return path;
}

}  // namespace conclave::fuzz
