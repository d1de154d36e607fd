#include "framework/recipe/domain.h"

#include <filesystem>

namespace conclave {

std::string domain_of(const DatasetRecipe& recipe) {
  return recipe.domain.empty() ? std::filesystem::path(recipe.path).filename().string() : recipe.domain;
}

}  // namespace conclave
