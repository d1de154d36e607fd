// Extraction: a smaller model out of one with many experts. It keeps of each layer the experts that one
// domain needs most (expert_choice.h). It becomes the first checkpoint of a run, which evaluate, generate,
// inspect, export and train take like any other. Shared experts are no part of the choice: all are kept.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "launch/train/recipe.h"
#include "parallel/communicator.h"

namespace conclave {

struct ExtractOptions {
  std::filesystem::path checkpoint;    // a step directory, verified
  std::string domain;                  // whose text the experts are measured on
  std::int64_t experts = 0;            // routed experts that each layer keeps
  bool calibrate_on_training = true;   // else on held-out text, which is then seen
  std::int64_t sequences = 64;         // of that text; 0: all
  std::filesystem::path run;           // becomes a run directory; empty: beside the recipe's output
  std::vector<std::string> overrides;  // key.path=value of the recipe, model aside
};

/// Every rank holds the whole model and measures its part of the text; rank 0 writes. Besides recipe.yaml and
/// checkpoints/step-00000000 there is extracted.json in the run directory. The checkpoint has the same text
/// as its attribute "extracted" (docs/specialisation.md). Returns the recipe as written. Throws
/// Fault::request where the model is dense, the domain unknown, the number of experts impossible or the place
/// taken. Collective.
Recipe extract_experts(const ExtractOptions& options, Communicator& world,
                       const std::function<void(const std::string&)>& say);

}  // namespace conclave
