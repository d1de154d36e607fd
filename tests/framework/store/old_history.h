// experts.h5 as earlier versions of Conclave wrote it: one file with all rows in datasets that grow.
#pragma once

#include <filesystem>

#include "framework/store/expert_history.h"

namespace conclave {

enum class OldVersion {
  without_loads,  // the first one: neither loads by rank nor scores
  last,           // the one before segments
};

void write_old_history(const std::filesystem::path& path, const ExpertHistory& history, OldVersion version);

}  // namespace conclave
