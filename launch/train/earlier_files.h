// Files of an earlier start in a run directory, met by a start that begins anew because there is no
// checkpoint. They are moved aside, never written over.
#pragma once

#include <filesystem>
#include <string>

namespace conclave {

/// A metrics.jsonl or samples.jsonl that no run of Conclave has written, or that is a link, is a
/// Fault::request: the run would write over something that is not its own.
void refuse_foreign_logs(const std::filesystem::path& run);

/// Moves what an earlier start has measured to RUN/earlier-1, or the next number that is free, and copies its
/// recipe there. Returns a sentence that names the place, or nothing where nothing was measured.
std::string move_earlier_files(const std::filesystem::path& run);

}  // namespace conclave
