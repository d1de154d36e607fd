#include "launch/tools/convert/tokenizer_config.h"

#include "framework/base/error.h"
#include "framework/store/json_text.h"
#include "launch/tools/convert/json_file.h"

namespace conclave {
namespace fs = std::filesystem;

namespace {

using OrderedJson = nlohmann::ordered_json;

constexpr const char* file_name = "tokenizer_config.json";

void set_roles(const TokenRoles& roles, std::int64_t sequence_length, OrderedJson& config) {
  config["model_max_length"] = sequence_length;
  config["bos_token"] = config["eos_token"] = roles.separator->text;
  config.erase("pad_token");
  if (roles.padding) config["pad_token"] = roles.padding->text;
  config["add_bos_token"] = config["add_eos_token"] = false;
  // Without a list, transformers 4 hands models token_type_ids, which they refuse.
  config["model_input_names"] = {"input_ids", "attention_mask"};
}

}  // namespace

fs::path tokenizer_config_beside(const fs::path& tokenizer) {
  return tokenizer.parent_path() / file_name;
}

std::string special_token(const nlohmann::json& config, const std::string& key, const fs::path& file) {
  const auto found = config.find(key);
  if (found == config.end() || found->is_null()) return "";
  const nlohmann::json& text =
      found->is_object() && found->contains("content") ? found->at("content") : *found;
  check(text.is_string(), Fault::data, file.string(), ": ", key, " is ", text_of(text), ", expected a text.");
  return text.get<std::string>();
}

void write_tokenizer_config(const fs::path& directory, const char* kind, const TokenRoles& roles,
                            std::int64_t sequence_length, const char* tokenizer_class) {
  OrderedJson config{{"tokenizer_class", tokenizer_class}, {"clean_up_tokenization_spaces", false}};
  set_roles(roles, sequence_length, config);
  config[own_tokenizer_key] = kind;
  write_json(directory / file_name, config);
}

void write_adapted_tokenizer_config(const fs::path& brought, const fs::path& directory,
                                    const TokenRoles& roles, std::int64_t sequence_length) {
  OrderedJson config = read_json_object(brought);
  set_roles(roles, sequence_length, config);
  write_json(directory / file_name, config);
}

}  // namespace conclave
