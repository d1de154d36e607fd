// Makes a checkpoint of a Hugging Face model directory, from which a run goes on under any layout. It has the
// model's parameters, an optimizer at its beginning (states of zero, step 0), and a recipe. Dense models can
// become mixtures of experts on the way (upcycle.h). It holds little more than one parameter at a time.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "launch/tools/convert/upcycle.h"
#include "launch/train/recipe.h"

namespace conclave {

struct ImportOptions {
  std::filesystem::path directory;     // config.json, *.safetensors, tokenizer files
  std::filesystem::path run;           // becomes a run directory: recipe.yaml, checkpoints/step-00000000
  std::string recipe;                  // a recipe file for all but the model's shape; empty: the defaults
  std::vector<std::string> overrides;  // key.path=value, last of all
  std::optional<UpcycleOptions> upcycle;
};

/// `say` is given lines about the progress. Returns the recipe as written. Throws Fault::data where the
/// directory is not a model that Conclave can compute, and Fault::request where the run directory has
/// checkpoints already.
Recipe import_model(const ImportOptions& options, const std::function<void(const std::string&)>& say);

}  // namespace conclave
