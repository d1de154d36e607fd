#include "launch/tools/convert/config_reader.h"

#include <algorithm>
#include <cmath>

#include "framework/recipe/nearest.h"
#include "framework/store/json_text.h"

namespace conclave {

using Json = nlohmann::json;

ConfigReader::ConfigReader(Json config, std::string file)
    : config_(std::move(config)), file_(std::move(file)) {}

const Json* ConfigReader::find(const std::string& key) const {
  const std::size_t dot = key.find('.');
  const Json* place = &config_;
  if (dot != std::string::npos) {
    const auto section = config_.find(key.substr(0, dot));
    if (section == config_.end() || !section->is_object()) return nullptr;
    place = &*section;
  }
  const auto found = place->find(dot == std::string::npos ? key : key.substr(dot + 1));
  return found == place->end() || found->is_null() ? nullptr : &*found;
}

bool ConfigReader::has(const std::string& key) const {
  return find(key) != nullptr;
}

const Json& ConfigReader::at(const std::string& key) const {
  const Json* found = find(key);
  if (found == nullptr) refuse("the key ", key, " is missing, without which the model is not known.");
  return *found;
}

std::int64_t ConfigReader::whole(const std::string& key, std::int64_t least) const {
  const Json& value = at(key);
  constexpr std::int64_t most = 2147483647;
  if (!value.is_number_integer() || value.get<double>() < static_cast<double>(least) ||
      value.get<double>() > static_cast<double>(most))
    refuse(key, ": ", text_of(value), " came, expected a whole number from ", least, " to ", most, ".");
  return value.get<std::int64_t>();
}

std::int64_t ConfigReader::whole_or(const std::string& key, std::int64_t fallback) const {
  return has(key) ? whole(key, 0) : fallback;
}

double ConfigReader::real(const std::string& key) const {
  const Json& value = at(key);
  if (!value.is_number() || !std::isfinite(value.get<double>()))
    refuse(key, ": ", text_of(value), " came, expected a number.");
  return value.get<double>();
}

double ConfigReader::real_or(const std::string& key, double fallback) const {
  return has(key) ? real(key) : fallback;
}

bool ConfigReader::flag_or(const std::string& key, bool fallback) const {
  if (!has(key)) return fallback;
  if (!at(key).is_boolean()) refuse(key, ": ", text_of(at(key)), " came, expected true or false.");
  return at(key).get<bool>();
}

std::string ConfigReader::text_or(const std::string& key, const std::string& fallback) const {
  if (!has(key)) return fallback;
  if (!at(key).is_string()) refuse(key, ": ", text_of(at(key)), " came, expected a text.");
  return at(key).get<std::string>();
}

std::vector<std::int64_t> ConfigReader::wholes_or_none(const std::string& key) const {
  if (!has(key)) return {};
  if (!at(key).is_array()) refuse(key, ": ", text_of(at(key)), " came, expected a list of whole numbers.");
  std::vector<std::int64_t> numbers;
  for (const Json& number : at(key)) {
    if (!number.is_number_unsigned() || number.get<std::uint64_t>() > 2147483647)
      refuse(key, ": ", text_of(number), " came in it, expected whole numbers.");
    numbers.push_back(number.get<std::int64_t>());
  }
  return numbers;
}

ConfigReader ConfigReader::section(const std::string& key) const {
  if (!has(key)) return {Json::object(), file_};
  if (!at(key).is_object()) refuse(key, ": ", text_of(at(key)), " came, expected a section of keys.");
  return {at(key), file_ + ": " + key};
}

void ConfigReader::expect(const std::string& key, const Json& value, const std::string& why) const {
  if (has(key) && at(key) != value)
    refuse(key, ": ", text_of(at(key)), " came, expected ", text_of(value), ": ", why, ".");
}

std::string ConfigReader::one_of(const std::vector<std::string>& keys) const {
  std::string first;
  for (const std::string& key : keys) {
    if (!has(key)) continue;
    if (first.empty()) first = key;
    if (at(key) != at(first))
      refuse(first, " is ", text_of(at(first)), ", but ", key, " is ", text_of(at(key)),
             ", and both tell the same thing; take the one out that is wrong.");
  }
  return first.empty() ? keys.front() : first;
}

void ConfigReader::expect_no_other(const std::string& section, const std::vector<std::string>& keys,
                                   const std::string& why) const {
  const ConfigReader inner = this->section(section);
  for (const auto& [key, value] : inner.json().items())
    if (!value.is_null() && std::find(keys.begin(), keys.end(), key) == keys.end())
      refuse(section, ".", key, " came, expected no other key than ", join_words(keys), ": ", why, ".");
}

}  // namespace conclave
