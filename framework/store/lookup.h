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

/// Says whether two paths name one file, through links of either kind too; what is not there is the same as
/// nothing.
bool is_same_file(const std::filesystem::path& one, const std::filesystem::path& other);

/// The paths of all that is directly in a directory, in no order; a directory that is not there has nothing.
std::vector<std::filesystem::path> entries_of(const std::filesystem::path& directory,
                                              Fault fault = Fault::data);

}  // namespace conclave
