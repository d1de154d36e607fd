// SequenceMixer: the part of a block in which the tokens of a sequence learn from each other. The block knows
// no more of it; which one a recipe's model has is said in sequence_mixer.cpp alone.
#pragma once

#include <memory>
#include <span>
#include <string>

#include "framework/autograd/tape.h"
#include "layers/initial_range.h"
#include "layers/model_input.h"
#include "layers/parallelism.h"
#include "layers/recipe.h"

namespace conclave {

/// What a mixer keeps of one sequence's tokens, so that later ones can be computed without them.
class MixerState {
 public:
  MixerState() = default;
  MixerState(const MixerState&) = delete;
  MixerState& operator=(const MixerState&) = delete;
  virtual ~MixerState() = default;
};

/// The tokens that come next in one sequence: rows begin .. end - 1 of a row of tokens, behind `seen` earlier
/// ones that the state keeps.
struct Continuation {
  std::int64_t begin = 0, end = 0, seen = 0;
  MixerState* state = nullptr;
};

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

  /// A state with room for so many tokens of a sequence, none of them seen. Values are of the type `dtype`.
  virtual std::unique_ptr<MixerState> make_state(std::int64_t tokens, DType dtype, Device& device) const = 0;
  /// The bytes that such a state takes.
  virtual std::size_t state_bytes(std::int64_t tokens, DType dtype) const = 0;
  /// The same as forward, for tokens that come next in several sequences (row_of in model_input.h). The
  /// states keep them from then on. Outside of training, on one tensor rank.
  virtual Variable extend(Tape& tape, const Variable& x, const ModelInput& row,
                          std::span<const Continuation> continuations) const = 0;
};

/// The mixer of a block called BLOCK, the index-th from 0. Its parameters lie under BLOCK.self_attn, as
/// Hugging Face has them.
std::unique_ptr<SequenceMixer> make_sequence_mixer(ParameterSet& parameters, const std::string& block,
                                                   std::int64_t index, const TransformerRecipe& model,
                                                   const InitialRange& range, const Parallelism& parallelism);

}  // namespace conclave
