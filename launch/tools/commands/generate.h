// `conclave generate`: samples text from a checkpoint.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "launch/tools/doctor/machine_facts.h"

namespace conclave {

/// `arguments` are those after the word generate. Returns the exit code.
int run_generate(const std::vector<std::string>& arguments);

/// Fault::machine where a cache of so many bytes, beside a model of so many, does not fit the memory that
/// this process may take. Unknown memory is enough.
void check_cache_fits(std::size_t cache, std::size_t model, std::size_t texts, const MachineFacts& machine);

}  // namespace conclave
