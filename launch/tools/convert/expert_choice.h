// Finds which experts of each layer a text needs most, layer by layer as in EMO's expert-subset evaluation
// (arXiv 2605.06663). The layers below have lost their other experts already when a layer is measured. An
// expert's score is the mean of the router's probability over the text's tokens.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "framework/data/batch.h"
#include "framework/store/checkpoint_file.h"
#include "launch/train/recipe.h"
#include "parallel/communicator.h"

namespace conclave {

struct LayerChoice {
  std::vector<std::int32_t> experts;  // the kept ones, ascending
  std::vector<double> scores;         // [all experts of the layer]
};

/// Returns the model that is used with few experts, made of the one that was trained. It has `experts` of
/// them, at most so many for a token, and no rule of training that only makes sense among all of them. A text
/// is measured with the same rules.
ModelRecipe with_experts(const ModelRecipe& model, std::int64_t experts);

/// Returns this rank's part of a text, in micro-batches. The text is `sequences` of the domain, evenly spaced
/// over its token files (0: all) and dealt out over the ranks. Throws Fault::request with the domains that
/// there are where `domain` is none of them.
std::vector<Batch> text_of_domain(const std::vector<DatasetRecipe>& datasets, const Recipe& recipe,
                                  const std::string& domain, std::int64_t sequences, int rank, int ranks);

/// Chooses the `experts` with the largest scores of each layer with experts, in order; among equal ones the
/// first. Every rank holds the checkpoint's model whole, and the answer is the same on all. Collective.
std::vector<LayerChoice> choose_experts(const CheckpointReader& checkpoint, const Recipe& recipe,
                                        std::int64_t experts, const std::vector<Batch>& text,
                                        Communicator& world, Device& device,
                                        const std::function<void(const std::string&)>& say);

}  // namespace conclave
