// SequenceMixer: the part of a block in which the tokens of a sequence learn from each other. The block knows
// no more of it; which one a recipe's model has is said in sequence_mixer.cpp alone.
#pragma once

#include <memory>
#include <string>

#include "framework/autograd/tape.h"
#include "layers/initial_range.h"
#include "layers/model_input.h"
#include "layers/parallelism.h"
#include "layers/recipe.h"

namespace conclave {

class SequenceMixer {
 public:
  SequenceMixer() = default;
  SequenceMixer(const SequenceMixer&) = delete;
  SequenceMixer& operator=(const SequenceMixer&) = delete;
  virtual ~SequenceMixer() = default;

  /// The name in profiles and plans for the time that a block spends on its mixer.
  virtual const char* purpose() const = 0;
  /// x [rows of the residual stream, hidden], normalised by the block -> the same, to be added to the stream.
  virtual Variable forward(Tape& tape, const Variable& x, const ModelInput& input) const = 0;
};

/// The mixer of a block called BLOCK, the index-th from 0. Its parameters lie under BLOCK.self_attn, as
/// Hugging Face has them.
std::unique_ptr<SequenceMixer> make_sequence_mixer(ParameterSet& parameters, const std::string& block,
                                                   std::int64_t index, const TransformerRecipe& model,
                                                   const InitialRange& range, const Parallelism& parallelism);

}  // namespace conclave
