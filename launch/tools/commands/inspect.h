// conclave inspect: what is in a checkpoint, and whether every byte of it is as it was written.
#pragma once

#include <string>
#include <vector>

namespace conclave {

/// Prints the tree of the checkpoint named by the only argument and returns the exit code: 0 when all is
/// well, 3 when the checkpoint, or a newer one beside it, is damaged (thrown as Fault::data when nothing good
/// is left to print).
int run_inspect(const std::vector<std::string>& arguments);

}  // namespace conclave
