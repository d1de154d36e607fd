// Durations as Slurm writes them, so that a job script can hand its limit on as it is.
#pragma once

#include <optional>
#include <string>

namespace conclave {

/// "90" or "90.5" (seconds), "MM:SS", "HH:MM:SS", "D-HH", "D-HH:MM" or "D-HH:MM:SS" in seconds; nothing where
/// the text is none of these.
std::optional<double> seconds_of_duration(const std::string& text);

}  // namespace conclave
