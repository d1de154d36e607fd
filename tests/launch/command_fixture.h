// Tests of the command share this: they run it in a scratch directory with texts, token files and a recipe.
// CONCLAVE_COMMAND and CONCLAVE_MPIRUN say where the programs are.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <istream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace conclave {

using Json = nlohmann::json;

struct Outcome {
  int exit_code;
  std::string output;  // standard output and standard error
};

/// Compiling a parser takes two seconds, so these tests share one.
Json parse_json(const std::string& text);
Json parse_json(std::istream& text);

Outcome run(const std::string& command);
Outcome conclave_command(const std::string& arguments, int ranks = 1);
std::size_t occurrences(const std::string& text, const std::string& part);

/// A scratch directory with two small domains of text that has some structure, and a recipe.
class Command : public testing::Test {
 protected:
  static void SetUpTestSuite();
  static void TearDownTestSuite() { std::filesystem::remove_all(folder_); }

  static std::string path(const std::string& name) { return (folder_ / name).string(); }
  static Outcome train(const std::string& output, const std::string& overrides, int ranks = 1);
  /// The lines of metrics.jsonl without what depends on time.
  static std::vector<Json> metrics(const std::string& output);

  static inline std::filesystem::path folder_;
};

}  // namespace conclave
