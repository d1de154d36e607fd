// The order of the house, as a table: which folders a folder may include. The proof that a part can be read,
// tested and replaced without what stands above it.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace conclave {

struct IncludeReport {
  int files = 0;                        // sources and headers that were read
  int includes = 0;                     // quoted includes that were judged
  std::vector<std::string> violations;  // one sentence each, with file and line
};

/// Reads every source and header below root's folders examples, launch, layers, optim, parallel, framework
/// and tests.
IncludeReport check_include_order(const std::filesystem::path& root);

}  // namespace conclave
