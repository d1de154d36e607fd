#include "launch/convert/config_reader.h"

#include <cmath>
#include <fstream>
#include <iterator>

#include "framework/store/lookup.h"

namespace conclave {

using Json = nlohmann::json;

Json read_json_object(const std::filesystem::path& path) {
  check(is_there(path), Fault::data, "There is no ", path.string(),
        ". Give the directory of a Hugging Face model, with config.json and *.safetensors in it.");
  std::ifstream file(path, std::ios::binary);
  check(file.good(), Fault::data, "Cannot open ", path.string(), ". Check its permissions.");
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  try {
    Json object = Json::parse(text);
    check(object.is_object(), Fault::data, path.string(), ": a JSON object is expected.");
    return object;
  } catch (const Json::exception& error) {
    fail(Fault::data, path.string(), " is not JSON that can be read: ", error.what(), ".");
  }
}

ConfigReader::ConfigReader(Json config, std::string file)
    : config_(std::move(config)), file_(std::move(file)) {}

bool ConfigReader::has(const std::string& key) const {
  const auto found = config_.find(key);
  return found != config_.end() && !found->is_null();
}

const Json& ConfigReader::at(const std::string& key) const {
  if (!has(key)) refuse("the key ", key, " is missing, without which the model is not known.");
  return config_.at(key);
}

std::int64_t ConfigReader::whole(const std::string& key, std::int64_t least) const {
  const Json& value = at(key);
  constexpr std::int64_t most = 2147483647;
  if (!value.is_number_integer() || value.get<double>() < static_cast<double>(least) ||
      value.get<double>() > static_cast<double>(most))
    refuse(key, ": ", value.dump(), " came, expected a whole number from ", least, " to ", most, ".");
  return value.get<std::int64_t>();
}

std::int64_t ConfigReader::whole_or(const std::string& key, std::int64_t fallback) const {
  return has(key) ? whole(key, 0) : fallback;
}

double ConfigReader::real(const std::string& key) const {
  const Json& value = at(key);
  if (!value.is_number() || !std::isfinite(value.get<double>()))
    refuse(key, ": ", value.dump(), " came, expected a number.");
  return value.get<double>();
}

double ConfigReader::real_or(const std::string& key, double fallback) const {
  return has(key) ? real(key) : fallback;
}

bool ConfigReader::flag_or(const std::string& key, bool fallback) const {
  if (!has(key)) return fallback;
  if (!at(key).is_boolean()) refuse(key, ": ", at(key).dump(), " came, expected true or false.");
  return at(key).get<bool>();
}

std::string ConfigReader::text_or(const std::string& key, const std::string& fallback) const {
  if (!has(key)) return fallback;
  if (!at(key).is_string()) refuse(key, ": ", at(key).dump(), " came, expected a text.");
  return at(key).get<std::string>();
}

std::vector<std::int64_t> ConfigReader::wholes_or_none(const std::string& key) const {
  if (!has(key)) return {};
  if (!at(key).is_array()) refuse(key, ": ", at(key).dump(), " came, expected a list of whole numbers.");
  std::vector<std::int64_t> numbers;
  for (const Json& number : at(key)) {
    if (!number.is_number_unsigned() || number.get<std::uint64_t>() > 2147483647)
      refuse(key, ": ", number.dump(), " came in it, expected whole numbers.");
    numbers.push_back(number.get<std::int64_t>());
  }
  return numbers;
}

ConfigReader ConfigReader::section(const std::string& key) const {
  if (!has(key)) return {Json::object(), file_};
  if (!at(key).is_object()) refuse(key, ": ", at(key).dump(), " came, expected a section of keys.");
  return {at(key), file_ + ": " + key};
}

void ConfigReader::expect(const std::string& key, const Json& value, const std::string& why) const {
  if (has(key) && at(key) != value)
    refuse(key, ": ", at(key).dump(), " came, expected ", value.dump(), ": ", why, ".");
}

}  // namespace conclave
