// Helpers of the data tests: a folder that vanishes with its test, files as strings, the error of a call.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>
#include <vector>

#include "framework/base/error.h"
#include "framework/data/token_file.h"

namespace conclave {

class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "conclave-test-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("no temporary folder can be made");
    path_ = name;
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  std::string operator/(const std::string& name) const { return (path_ / name).string(); }
  std::string path() const { return path_.string(); }
  std::vector<std::string> names() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(path_))
      names.push_back(entry.path().filename());
    std::sort(names.begin(), names.end());
    return names;
  }

 private:
  std::filesystem::path path_;
};

inline void write_file(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

inline std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// The Error that the call throws; a test failure and an empty text when it throws none.
template <class Call>
Error error_of(const Call& call) {
  try {
    call();
  } catch (const Error& error) {
    return error;
  }
  ADD_FAILURE() << "an Error was expected";
  return Error(Fault::internal, "");
}

#define EXPECT_SAYS(error, text) \
  EXPECT_NE(std::string((error).what()).find(text), std::string::npos) << (error).what()

inline void write_tokens(const std::string& prefix, const std::vector<std::vector<std::int32_t>>& documents,
                         std::int64_t vocabulary = 257) {
  TokenFileWriter writer(prefix, vocabulary);
  for (const auto& document : documents) writer.append_document(document);
  writer.finish({.domain = "d", .tokenizer = "bytes", .fingerprint = "bytes", .vocab_size = vocabulary});
}

}  // namespace conclave
