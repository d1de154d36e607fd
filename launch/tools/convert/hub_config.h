// HubConfig: config.json and generation_config.json of an export. They have what the recipe says. Beside it
// they have what an imported model had said of itself and training does not change.
#pragma once

#include <filesystem>
#include <optional>

#include "launch/tools/convert/architecture.h"
#include "launch/tools/convert/source_facts.h"
#include "launch/tools/convert/token_roles.h"
#include "launch/train/recipe.h"

namespace conclave {

struct HubConfig {
  const Architecture& architecture;
  const Recipe& recipe;
  bool bfloat16 = false;  // else float32
  /// These are the roles in the tokenizer that is exported. Without them the ids are those of the source.
  std::optional<TokenRoles> roles;
  std::optional<SourceFacts> source;

  nlohmann::ordered_json config() const;
  nlohmann::ordered_json generation() const;
};

/// Returns the longest sequence that a model can read: the source's, or that of its training here.
std::int64_t longest_sequence(const Recipe& recipe, const std::optional<SourceFacts>& source);

/// Writes both, and the code of a class that transformers does not have.
void write_hub_config(const std::filesystem::path& directory, const HubConfig& config);

}  // namespace conclave
