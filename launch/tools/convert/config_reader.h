// ConfigReader: the keys of a config.json, each read with its type and range. A key that is missing or wrong
// is a Fault::data that names file and key. "SECTION.KEY" is a key in a section.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "framework/base/error.h"
#include "launch/tools/convert/json_file.h"

namespace conclave {

class ConfigReader {
 public:
  ConfigReader(nlohmann::json config, std::string file);
  explicit ConfigReader(const std::filesystem::path& path)
      : ConfigReader(read_json_object(path), path.string()) {}

  /// True where the key is there and not null.
  bool has(const std::string& key) const;
  /// The number is at least `least` and below 2^31.
  std::int64_t whole(const std::string& key, std::int64_t least = 1) const;
  std::int64_t whole_or(const std::string& key, std::int64_t fallback) const;
  double real(const std::string& key) const;
  double real_or(const std::string& key, double fallback) const;
  bool flag_or(const std::string& key, bool fallback) const;
  std::string text_or(const std::string& key, const std::string& fallback) const;
  std::vector<std::int64_t> wholes_or_none(const std::string& key) const;
  /// Returns a section of keys; empty where it is missing or null.
  ConfigReader section(const std::string& key) const;

  /// Requires that the key is missing, is null or has this value; else `why` says what Conclave lacks.
  void expect(const std::string& key, const nlohmann::json& value, const std::string& why) const;
  /// Several keys may tell one fact. Returns the first of them that is there, or the first of all where none
  /// is. Refuses the file where two of them are there and differ.
  std::string one_of(const std::vector<std::string>& keys) const;
  /// Refuses what a section says beyond these keys.
  void expect_no_other(const std::string& section, const std::vector<std::string>& keys,
                       const std::string& why) const;
  /// Throws a Fault::data about the file.
  template <class... Parts>
  [[noreturn]] void refuse(const Parts&... parts) const {
    fail(Fault::data, file_, ": ", parts...);
  }

  const std::string& file() const { return file_; }
  const nlohmann::json& json() const { return config_; }

 private:
  /// Returns the value of a key, or nothing where it is missing or null.
  const nlohmann::json* find(const std::string& key) const;
  const nlohmann::json& at(const std::string& key) const;

  nlohmann::json config_;
  std::string file_;
};

}  // namespace conclave
