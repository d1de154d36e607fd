#include "launch/tools/commands/recipe_texts.h"

#include <filesystem>
#include <system_error>

#include "framework/base/error.h"
#include "framework/data/batch_ramp.h"
#include "framework/data/file_kind.h"

namespace conclave {
namespace {

bool is_there(const std::string& file) {
  std::error_code ignored;
  return std::filesystem::exists(file, ignored);
}

/// "recipe.yaml:12: data.train.0.path: ", as far as the place is known.
std::string place_of(const Recipe& recipe, const std::string& key) {
  return recipe.places.of(key) + key + ": ";
}

/// The datasets of a list whose files are both here.
std::vector<DatasetRecipe> those_here(const Recipe& recipe, const std::string& list,
                                      const std::vector<DatasetRecipe>& sets,
                                      std::vector<std::string>& missing) {
  std::vector<DatasetRecipe> here;
  for (std::size_t i = 0; i < sets.size(); ++i) {
    if (!is_there(sets[i].path + ".idx")) refuse_foreign_tokens(sets[i].path);
    bool whole = true;
    for (const char* ending : {".bin", ".idx"}) {
      if (is_there(sets[i].path + ending)) continue;
      missing.push_back(join_text(place_of(recipe, join_text(list, ".", i, ".path")), sets[i].path, ending,
                                  " is not there; training here would need it. ",
                                  how_to_make_tokens(sets[i].path)));
      whole = false;
    }
    if (whole) here.push_back(sets[i]);
  }
  return here;
}

}  // namespace

RecipeTexts open_texts(const Recipe& recipe) {
  RecipeTexts texts;
  DataRecipe here = recipe.data;
  here.train = those_here(recipe, "data.train", recipe.data.train, texts.missing);
  here.validation = those_here(recipe, "data.validation", recipe.data.validation, texts.missing);
  if (recipe.data.tokenizer != "bytes" && !is_there(recipe.data.tokenizer)) {
    texts.missing.push_back(join_text(place_of(recipe, "data.tokenizer"), recipe.data.tokenizer,
                                      " is not there; training here would need it."));
    return texts;  // what a dataset says of its tokenizer cannot be compared
  }
  if (!here.train.empty())
    texts.training = std::make_unique<TrainingData>(
        here, recipe.model.vocab_size, recipe.training.seed,
        [&recipe](std::int64_t step) { return batch_size_at(recipe.training, step); });
  if (!here.validation.empty()) ValidationData(here, recipe.model.vocab_size);
  return texts;
}

}  // namespace conclave
