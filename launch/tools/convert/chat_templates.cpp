#include "launch/tools/convert/chat_templates.h"

#include "framework/base/error.h"
#include "framework/data/files.h"
#include "framework/store/durable_file.h"
#include "framework/store/lookup.h"
#include "launch/tools/convert/json_file.h"

namespace conclave {
namespace fs = std::filesystem;

namespace {

constexpr const char* config_file = "tokenizer_config.json";
constexpr const char* config_key = "chat_template";
constexpr const char* folder = "additional_chat_templates";

std::string text_of_file(const fs::path& path) {
  return std::string(MappedFile(path.string(), "chat template").bytes());
}

/// False for a name that would leave the directory.
bool is_name_of_template(const std::string& name) {
  const fs::path path(name), file = path.filename();
  return name == "chat_template.jinja" || name == "chat_template.json" ||
         (path == fs::path(folder) / file && file.extension() == ".jinja");
}

}  // namespace

ChatTemplates ChatTemplates::of(const fs::path& directory) {
  ChatTemplates found;
  if (is_there(directory / config_file)) {
    const nlohmann::json config = read_json_object(directory / config_file);
    if (config.contains(config_key)) found.in_config = config.at(config_key);
  }
  for (const char* name : {"chat_template.jinja", "chat_template.json"})
    if (is_there(directory / name)) found.files[name] = text_of_file(directory / name);
  if (is_directory_there(directory / folder))
    for (const fs::path& file : entries_of(directory / folder))
      if (file.extension() == ".jinja")
        found.files[(fs::path(folder) / file.filename()).string()] = text_of_file(file);
  return found;
}

ChatTemplates ChatTemplates::of(const nlohmann::json& json) {
  if (json.is_null()) return {};
  ChatTemplates read{.in_config = json.at("in_config"),
                     .files = json.at("files").get<std::map<std::string, std::string>>()};
  for (const auto& [name, text] : read.files)
    check(is_name_of_template(name), Fault::data, "A chat template in the attribute source is called ", name,
          ", expected chat_template.jinja, chat_template.json or ", folder, "/NAME.jinja.");
  return read;
}

nlohmann::json ChatTemplates::json() const {
  if (in_config.is_null() && files.empty()) return nullptr;
  return {{"in_config", in_config}, {"files", files}};
}

void ChatTemplates::write(const fs::path& directory) const {
  if (!in_config.is_null()) {
    nlohmann::ordered_json config = read_json_object(directory / config_file);
    config[config_key] = in_config;
    write_json(directory / config_file, config);
  }
  for (const auto& [name, text] : files) {
    const fs::path path = directory / name;
    if (path.parent_path() != directory) make_directories(path.parent_path());
    write_text_durably(path, text);
    if (path.parent_path() != directory) sync_to_disk(path.parent_path());
  }
}

}  // namespace conclave
