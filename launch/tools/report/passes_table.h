// The table of a report that says how often the run has gone over each training dataset.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>

namespace conclave {

/// Reads DIRECTORY/passes.json, or data.json of an older version's run; returns null where there is neither.
nlohmann::ordered_json passes_table(const std::filesystem::path& directory);

}  // namespace conclave
