// Which experts of each layer a text needs most, layer by layer as in EMO's expert-subset evaluation (arXiv
// 2605.06663): the layers below have lost their other experts already when a layer is measured. An expert's
// score is the mean of the router's probability over the text's tokens.
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

/// The model that is used with few experts, of the one that was trained: `experts` of them, at most so many
/// for a token, and no rule of training that only makes sense among all of them. A text is measured with the
/// same rules.
ModelRecipe with_experts(const ModelRecipe& model, std::int64_t experts);

/// This rank's part of a text, in micro-batches: `sequences` of the domain, evenly spaced over its token
/// files (0: all), dealt out over the ranks. Fault::request with the domains that there are where `domain` is
/// none.
std::vector<Batch> text_of_domain(const std::vector<DatasetRecipe>& datasets, const Recipe& recipe,
                                  const std::string& domain, std::int64_t sequences, int rank, int ranks);

/// Of each layer with experts, in order, the `experts` with the largest scores; of equal ones the first. The
/// checkpoint's model is held whole by every rank; the same answer on all. Collective.
std::vector<LayerChoice> choose_experts(const CheckpointReader& checkpoint, const Recipe& recipe,
                                        std::int64_t experts, const std::vector<Batch>& text,
                                        Communicator& world, Device& device,
                                        const std::function<void(const std::string&)>& say);

}  // namespace conclave
