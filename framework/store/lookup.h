// What stands at a path. A place that may not be looked at (no permission, a circle of links) is a sentence
// and never "nothing there", which would make a run begin anew beside the checkpoints that it cannot see.
#pragma once

#include <filesystem>
#include <vector>

#include "framework/base/error.h"

namespace conclave {

/// Whether there is anything at the path, links followed.
bool is_there(const std::filesystem::path& path, Fault fault = Fault::data);

bool is_directory_there(const std::filesystem::path& path, Fault fault = Fault::data);

/// The paths of all that is directly in a directory, in no order; a directory that is not there has nothing.
std::vector<std::filesystem::path> entries_of(const std::filesystem::path& directory,
                                              Fault fault = Fault::data);

}  // namespace conclave
