#include "launch/tools/convert/json_file.h"

#include <fstream>
#include <iterator>
#include <set>
#include <string>
#include <vector>

#include "framework/base/error.h"
#include "framework/store/durable_file.h"
#include "framework/store/lookup.h"

namespace conclave {
namespace {

/// Follows a parser through a file and refuses what readers of JSON disagree about: a key that an object has
/// twice, of which most take the last; and depth that some cannot walk through.
class KeyWatch {
 public:
  explicit KeyWatch(const std::filesystem::path& path) : path_(path) {}

  bool operator()(int depth, nlohmann::json::parse_event_t event, nlohmann::json& parsed) {
    using Event = nlohmann::json::parse_event_t;
    constexpr int deepest = 64;
    check(depth <= deepest, Fault::data, path_.string(), " is nested more than ", deepest,
          " levels deep, which no such file is.");
    if (event == Event::object_start) keys_.emplace_back();
    if (event == Event::object_end) keys_.pop_back();
    if (event == Event::key)
      check(keys_.back().insert(parsed.get<std::string>()).second, Fault::data, path_.string(), ": the key ",
            parsed.get<std::string>(), " is there twice; take the one out that is wrong.");
    return true;
  }

 private:
  std::filesystem::path path_;
  std::vector<std::set<std::string>> keys_;  // of the objects that are open
};

}  // namespace

nlohmann::json read_json_object(const std::filesystem::path& path) {
  check(is_there(path), Fault::data, "There is no ", path.string(),
        ". Give the directory of a Hugging Face model, with config.json and *.safetensors in it.");
  std::ifstream file(path, std::ios::binary);
  check(file.good(), Fault::data, "Cannot open ", path.string(), ". Check its permissions.");
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  try {
    nlohmann::json object = nlohmann::json::parse(text, KeyWatch(path));
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
