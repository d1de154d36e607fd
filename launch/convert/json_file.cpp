#include "launch/convert/json_file.h"

#include <fstream>
#include <iterator>

#include "framework/base/error.h"
#include "framework/store/durable_file.h"
#include "framework/store/lookup.h"

namespace conclave {

nlohmann::json read_json_object(const std::filesystem::path& path) {
  check(is_there(path), Fault::data, "There is no ", path.string(),
        ". Give the directory of a Hugging Face model, with config.json and *.safetensors in it.");
  std::ifstream file(path, std::ios::binary);
  check(file.good(), Fault::data, "Cannot open ", path.string(), ". Check its permissions.");
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  try {
    nlohmann::json object = nlohmann::json::parse(text);
    check(object.is_object(), Fault::data, path.string(), ": a JSON object is expected.");
    return object;
  } catch (const nlohmann::json::exception& error) {
    fail(Fault::data, path.string(), " is not JSON that can be read: ", error.what(), ".");
  }
}

void write_json(const std::filesystem::path& path, const nlohmann::ordered_json& json) {
  std::string text;
  try {
    text = json.dump(2) + "\n";
  } catch (const nlohmann::json::type_error&) {
    fail(Fault::data, "A text is not UTF-8, which ", path.filename().string(),
         " cannot say. Where it is a piece of the tokenizer, --tokenizer none exports without it.");
  }
  write_text_durably(path, text);
}

}  // namespace conclave
