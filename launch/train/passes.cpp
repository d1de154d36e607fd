#include "launch/train/passes.h"

#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>

#include "framework/base/error.h"
#include "framework/store/durable_file.h"

namespace conclave {
namespace {

std::string listed(const std::vector<DatasetPasses>& passes, double DatasetPasses::*which) {
  std::string text;
  for (const DatasetPasses& one : passes)
    text += join_text(text.empty() ? "" : ", ", one.domain, " ", passes_text(one.*which));
  return text;
}

}  // namespace

std::vector<DatasetPasses> passes_of(TrainingData& data, std::int64_t step, std::int64_t last_step) {
  const std::vector<std::int64_t> now = data.drawn(step), end = data.drawn(last_step);
  std::vector<DatasetPasses> passes;
  for (std::size_t i = 0; i < now.size(); ++i) {
    const Dataset& dataset = data.datasets()[i];
    const auto sequences = static_cast<double>(dataset.full_sequences());
    passes.push_back({.domain = dataset.domain(),
                      .path = dataset.path(),
                      .tokens = dataset.tokens(),
                      .sequences = dataset.full_sequences(),
                      .so_far = static_cast<double>(now[i]) / sequences,
                      .planned = static_cast<double>(end[i]) / sequences});
  }
  return passes;
}

std::string passes_text(double passes) {
  char text[32];
  std::snprintf(text, sizeof text, passes < 99.5 ? "%.3g" : "%.0f", passes);
  return text;
}

std::string passes_so_far_text(const std::vector<DatasetPasses>& passes) {
  return listed(passes, &DatasetPasses::so_far);
}

std::string planned_passes_text(const std::vector<DatasetPasses>& passes) {
  return listed(passes, &DatasetPasses::planned);
}

void write_passes(const std::filesystem::path& directory, const std::vector<DatasetPasses>& passes,
                  std::int64_t step, std::int64_t steps) {
  using Json = nlohmann::ordered_json;
  Json json{{"step", step}, {"steps", steps}, {"datasets", Json::array()}};
  for (const DatasetPasses& one : passes)
    json["datasets"].push_back({{"domain", one.domain},
                                {"path", one.path},
                                {"tokens", one.tokens},
                                {"sequences", one.sequences},
                                {"passes", one.so_far},
                                {"planned_passes", one.planned}});
  // A path that is not UTF-8 must not stop the work.
  write_text_durably(directory / passes_name,
                     json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

bool is_passes_file(const std::filesystem::path& path) {
  const std::string beginning = "{\n  \"step\": ";
  std::ifstream file(path, std::ios::binary);
  std::string start(beginning.size(), '\0');
  return file.read(start.data(), static_cast<std::streamsize>(start.size())) && start == beginning;
}

}  // namespace conclave
