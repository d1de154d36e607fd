// A small checkpoint to test with: a tensor of the model, one of the optimizer, one of the state, attributes.
#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "framework/store/checkpoint_file.h"
#include "tests/framework/store/scratch_directory.h"

namespace conclave {

inline const std::vector<float> weights = {1, 2, 3, 4, 5, 6};

inline std::filesystem::path save(const std::filesystem::path& checkpoints, std::int64_t step,
                                  float first = 1) {
  CheckpointWriter writer(checkpoints, step);
  std::vector<float> values = weights;
  values[0] = first;
  const std::vector<double> moment = {0.5, 0.25};
  const std::vector<std::int64_t> counts = {step, 7};
  writer.add("model/layers.0.weight", {2, 3}, values.data());
  writer.add("optimizer/first/layers.0.weight", {2}, moment.data());
  writer.add("state/counts", {2}, counts.data());
  writer.set("tokens", std::int64_t{123});
  writer.set("recipe", std::string("name: test\nmodel: {}\n"));
  writer.set("best", 2.5);
  return writer.commit();
}

inline std::vector<std::string> names_in(const std::filesystem::path& directory) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(directory))
    names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace conclave
