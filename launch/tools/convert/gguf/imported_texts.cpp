#include "launch/tools/convert/gguf/imported_texts.h"

#include <filesystem>

#include "framework/store/lookup.h"
#include "launch/tools/convert/json_file.h"
#include "launch/tools/convert/tokenizer_config.h"

namespace conclave::gguf {
namespace fs = std::filesystem;

namespace {

using Json = nlohmann::json;

/// The first id where there are several, as a text may end in more than one way.
std::optional<std::int32_t> id_of(const Json& config, const char* key) {
  const auto found = config.find(key);
  if (found == config.end()) return {};
  const Json& id = found->is_array() && !found->empty() ? found->front() : *found;
  if (!id.is_number_integer()) return {};
  return id.get<std::int32_t>();
}

Json config_beside(const fs::path& tokenizer) {
  const fs::path path = tokenizer_config_beside(tokenizer);
  return is_there(path) ? Json(read_json_object(path)) : Json::object();
}

/// Of several templates the one that is called default.
std::string default_of(const ChatTemplates& templates) {
  if (const auto file = templates.files.find("chat_template.jinja"); file != templates.files.end())
    return file->second;
  if (templates.in_config.is_string()) return templates.in_config.get<std::string>();
  if (templates.in_config.is_array())
    for (const Json& one : templates.in_config)
      if (one.is_object() && one.value("name", "") == "default") return one.value("template", "");
  return "";
}

/// Those beside the tokenizer's file, or of a tokenizer without one those that it came with.
ChatTemplates templates_of(const ChosenTokenizer& chosen, const std::optional<SourceFacts>& source) {
  if (chosen.name != "bytes") return ChatTemplates::of(fs::path(chosen.name).parent_path());
  return chosen.is_sources_own ? source->templates : ChatTemplates{};
}

/// True where a post-processor's template for one text begins with a special token.
bool begins_with_token(const Json& processor) {
  if (!processor.is_object()) return false;
  if (const auto inner = processor.find("processors"); inner != processor.end())
    for (const Json& one : *inner)
      if (begins_with_token(one)) return true;
  const auto single = processor.find("single");
  return single != processor.end() && single->is_array() && !single->empty() &&
         single->front().contains("SpecialToken");
}

bool puts_token_before_text(const fs::path& tokenizer, const Json& config) {
  if (const auto says = config.find("add_bos_token"); says != config.end() && says->is_boolean())
    return says->get<bool>();
  const fs::path file = tokenizer.parent_path() / "tokenizer.json";
  if (!is_there(file)) return false;
  const Json json = read_json_object(file);
  const auto processor = json.find("post_processor");
  return processor != json.end() && begins_with_token(*processor);
}

}  // namespace

SpecialIds ids_of_source(const SourceFacts& source) {
  return {.opening = id_of(source.config, "bos_token_id"),
          .ending = id_of(source.config, "eos_token_id"),
          .padding = id_of(source.config, "pad_token_id")};
}

void write_imported_texts(const ChosenTokenizer& chosen, const std::optional<SourceFacts>& source,
                          KeyValues& keys) {
  if (chosen.name.empty()) return;
  keys.add("tokenizer.ggml.add_bos_token",
           chosen.is_sources && puts_token_before_text(chosen.name, config_beside(chosen.name)));
  keys.add("tokenizer.ggml.add_eos_token", false);
  const std::string chat = default_of(templates_of(chosen, source));
  if (!chat.empty()) keys.add("tokenizer.chat_template", chat);
}

}  // namespace conclave::gguf
