// conclave inspect: what is in a checkpoint, and whether every byte of it is as it was written.
#pragma once

#include <string>
#include <vector>

namespace conclave {

/// Prints the tree of the checkpoint named by the only argument and returns the exit code. It is 0 when all
/// is well, and 3 when the checkpoint, or a newer one beside it, is damaged. Where nothing good is left to
/// print, that is thrown as Fault::data.
int run_inspect(const std::vector<std::string>& arguments);

}  // namespace conclave
