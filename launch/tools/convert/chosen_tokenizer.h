// ChosenTokenizer: the tokenizer that goes with an exported model, and whose word counts about its tokens.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "launch/tools/convert/source_facts.h"
#include "launch/train/recipe.h"

namespace conclave {

struct ChosenTokenizer {
  std::string name;             // load_tokenizer's; empty: none goes along
  bool is_sources = false;      // the files and the ids of special tokens are those of the imported model
  bool is_sources_own = false;  // it came with the imported model, and Conclave makes its files again
};

/// `asked` is what --tokenizer says: empty for the recipe's, or "none". `say` is told what was chosen where
/// that is not plain.
ChosenTokenizer choose_tokenizer(const Recipe& recipe, const std::string& asked,
                                 const std::optional<SourceFacts>& source,
                                 const std::function<void(const std::string&)>& say);

}  // namespace conclave
