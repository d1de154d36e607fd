// The table of a report that says how often the run has gone over each training dataset.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>

namespace conclave {

/// From DIRECTORY/data.json; null where a run of an older version left none.
nlohmann::ordered_json passes_table(const std::filesystem::path& directory);

}  // namespace conclave
