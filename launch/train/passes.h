// Passes: how often a run goes over each training dataset. DIRECTORY/passes.json keeps them for the report.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "framework/data/dataset.h"

namespace conclave {

struct DatasetPasses {
  std::string domain, path;
  std::int64_t tokens = 0, sequences = 0;  // the whole ones
  double so_far = 0, planned = 0;          // at a step of the run, and at its end
};

/// `step` and `last_step` count as TrainingData does.
std::vector<DatasetPasses> passes_of(TrainingData& data, std::int64_t step, std::int64_t last_step);

/// Writes passes as 0.0123, 1.52 or 31.
std::string passes_text(double passes);
/// These two write passes by domain: "english 0.52, german 1.2".
std::string passes_so_far_text(const std::vector<DatasetPasses>& passes);
std::string planned_passes_text(const std::vector<DatasetPasses>& passes);

/// Writes the passes after `step` of `steps`. The file is there whole or not at all.
void write_passes(const std::filesystem::path& directory, const std::vector<DatasetPasses>& passes,
                  std::int64_t step, std::int64_t steps);

constexpr const char* passes_name = "passes.json";
/// Runs of earlier versions called the file so; the description of a dataset `data` has the same name.
constexpr const char* old_passes_name = "data.json";
/// Says whether write_passes has written this file.
bool is_passes_file(const std::filesystem::path& path);

}  // namespace conclave
