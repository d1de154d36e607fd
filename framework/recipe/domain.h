// The domain of a dataset: the kind of text that it counts as.
#pragma once

#include <string>

#include "framework/recipe/recipe.h"

namespace conclave {

/// In metrics.jsonl, beside the losses of the domains.
constexpr const char* mean_of_domains = "mean";

/// The name of a dataset's domain: that of its file where the recipe gives none.
std::string domain_of(const DatasetRecipe& recipe);

}  // namespace conclave
