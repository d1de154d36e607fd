// ChatTemplates: how a model of chats wants its messages laid out. They come in three forms: the key
// chat_template of tokenizer_config.json, chat_template.jinja or .json beside it, and further ones in a
// folder. An export hands each on in the form in which it came.
#pragma once

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

namespace conclave {

struct ChatTemplates {
  nlohmann::json in_config;                  // value of the key; null: there is none
  std::map<std::string, std::string> files;  // their texts, by path below the directory

  /// Reads those of a directory. Throws Fault::data where a file cannot be read.
  static ChatTemplates of(const std::filesystem::path& directory);
  /// Reads what json() gave; none from null.
  static ChatTemplates of(const nlohmann::json& json);
  nlohmann::json json() const;

  /// Adds them to a directory whose tokenizer_config.json is there.
  void write(const std::filesystem::path& directory) const;
};

}  // namespace conclave
