// Questions about what stands at a path. A place may be closed to this process (no permission, a circle of
// links). Then the answer is a sentence and never "nothing there". Otherwise a run would begin anew beside
// the checkpoints that it cannot see.
#pragma once

#include <filesystem>
#include <vector>

#include "framework/base/error.h"

namespace conclave {

/// True where there is anything at the path, links followed.
bool is_there(const std::filesystem::path& path, Fault fault = Fault::data);

bool is_directory_there(const std::filesystem::path& path, Fault fault = Fault::data);

/// True where two paths name one file, through links of either kind too. A path where nothing stands is the
/// same as no other.
bool is_same_file(const std::filesystem::path& one, const std::filesystem::path& other);

/// The paths of all that is directly in a directory, in no order; a directory that is not there has nothing.
std::vector<std::filesystem::path> entries_of(const std::filesystem::path& directory,
                                              Fault fault = Fault::data);

}  // namespace conclave
