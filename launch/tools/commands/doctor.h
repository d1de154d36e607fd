// `conclave doctor` says what this machine has, and what is wrong with it.
#pragma once

#include <string>
#include <vector>

namespace conclave {

/// Returns the exit code: 0, or 5 where something is wrong. Collective over the ranks of the job.
int run_doctor(const std::vector<std::string>& arguments);

}  // namespace conclave
