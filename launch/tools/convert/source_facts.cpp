#include "launch/tools/convert/source_facts.h"

#include <algorithm>

#include "framework/store/lookup.h"

namespace conclave {

using Json = nlohmann::json;

std::string SourceFacts::text() const {
  return Json{{"config", config},
              {"generation_config", generation},
              {"tokenizer", tokenizer},
              {"is_own_tokenizer", is_own_tokenizer},
              {"chat_templates", templates.json()}}
      .dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::optional<SourceFacts> SourceFacts::of(const CheckpointReader& checkpoint) {
  if (!checkpoint.has(source_attribute)) return {};
  try {
    const Json json = Json::parse(checkpoint.text(source_attribute));
    SourceFacts facts{.config = json.at("config"),
                      .generation = json.at("generation_config"),
                      .tokenizer = json.at("tokenizer").get<std::string>(),
                      .is_own_tokenizer = json.at("is_own_tokenizer").get<bool>(),
                      .templates = ChatTemplates::of(json.value("chat_templates", Json()))};
    check(facts.config.is_object() && (facts.generation.is_object() || facts.generation.is_null()),
          Fault::data, checkpoint.path().string(), ": the attribute ", source_attribute,
          " has no config, or a generation_config that is no object.");
    return facts;
  } catch (const Json::exception& error) {
    fail(Fault::data, checkpoint.path().string(), ": the attribute ", source_attribute,
         " is not what an import writes: ", error.what(), ".");
  }
}

std::int64_t SourceFacts::longest_sequence() const {
  return ConfigReader(config, "config.json of the imported model").whole_or("max_position_embeddings", 0);
}

bool SourceFacts::may_end_with(std::int64_t id) const {
  const auto ends = config.find("eos_token_id");
  if (ends == config.end() || ends->is_null()) return true;
  return ends->is_array() ? std::find(ends->begin(), ends->end(), Json(id)) != ends->end() : *ends == id;
}

SourceFacts read_source_facts(const std::filesystem::path& directory, const ConfigReader& config) {
  SourceFacts facts{.config = config.json(), .generation = {}, .tokenizer = {}, .templates = {}};
  const auto generation = directory / "generation_config.json";
  if (is_there(generation)) facts.generation = read_json_object(generation);
  return facts;
}

}  // namespace conclave
