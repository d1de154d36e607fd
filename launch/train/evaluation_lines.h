// Evaluation lines are the lines of metrics.jsonl that tell of one evaluation, one for each domain and the
// mean at their end. A run that was killed among them repeats the evaluation.
#pragma once

#include <cstdint>
#include <filesystem>

namespace conclave {

/// Says whether the file has the evaluation of this step to its end; the lines of one that was cut short are
/// removed. A file that is missing or empty lacks nothing, since the checkpoint was carried to a new
/// directory.
bool keep_whole_evaluation(const std::filesystem::path& metrics, std::int64_t step);

}  // namespace conclave
