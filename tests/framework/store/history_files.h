// Readers for tests of an expert history: its files, and the rows that history_steps.h has written.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <vector>

#include "framework/store/expert_history.h"
#include "framework/store/hdf5_file.h"
#include "framework/store/history_index.h"

namespace conclave {

inline std::string content(const std::filesystem::path& file) {
  std::ifstream stream(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

/// Every file below a directory, by its name there.
inline std::map<std::string, std::string> files_below(const std::filesystem::path& directory) {
  std::map<std::string, std::string> files;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(directory))
    if (entry.is_regular_file())
      files[std::filesystem::relative(entry.path(), directory)] = content(entry.path());
  return files;
}

inline std::size_t segments_of(const std::filesystem::path& path) {
  return static_cast<std::size_t>(std::distance(std::filesystem::directory_iterator(segments_directory(path)),
                                                std::filesystem::directory_iterator()));
}

template <class T>
std::vector<T> plainly_read(const Hdf5File& file, const std::string& name) {
  const Dims dims = file.describe(name).dims;
  std::vector<T> values(static_cast<std::size_t>(element_count(dims)));
  file.read(name, ElementTypeOf<T>::value, dims, values.data());
  return values;
}

inline void expect_steps(const ExpertHistory& history, std::int64_t last) {
  ASSERT_EQ(history.step.size(), static_cast<std::size_t>(last));
  for (std::int64_t step = 1; step <= last; ++step) {
    const auto row = static_cast<std::size_t>(step - 1);
    EXPECT_EQ(history.step[row], step);
    EXPECT_EQ(history.counts[row * 6 + 5] % 1000000, step * 10 + 5);
    EXPECT_EQ(history.probability[row * 6], 0.125 * static_cast<double>(step));
  }
}

}  // namespace conclave
