// conclave report: what happened in a run, or in several side by side, as one HTML page.
#pragma once

#include <string>
#include <vector>

namespace conclave {

/// Writes report.html into the first run directory, or to --output, and prints where it is; returns 0. Throws
/// Fault::data where a directory holds no run.
int run_report(const std::vector<std::string>& arguments);

}  // namespace conclave
