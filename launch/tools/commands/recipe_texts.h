// The texts that a recipe names, as far as they are on this machine.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "framework/data/dataset.h"
#include "launch/train/recipe.h"

namespace conclave {

struct RecipeTexts {
  std::unique_ptr<TrainingData> training;  // from the texts that are here; null: none is
  std::vector<std::string> missing;        // a sentence about each file that is not
};

/// Opens the texts that are here with all checks that training makes, which throw as they do there.
RecipeTexts open_texts(const Recipe& recipe);

}  // namespace conclave
