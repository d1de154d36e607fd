// The first checkpoint of a run that begins with a model from elsewhere. It has the model's parameters, an
// optimizer at its beginning (states of zero, no updates), and step 0.
#pragma once

#include <filesystem>
#include <vector>

#include "framework/store/checkpoint_stream.h"
#include "launch/train/recipe.h"
#include "optim/optimizer.h"

namespace conclave {

/// Throws Fault::request unless a run can be made there: nothing is there, or an empty directory.
void check_place_of_run(const std::filesystem::path& run);

/// Returns what Trainer::attributes says at the beginning of a run.
Attributes first_attributes(const Recipe& recipe);

/// Adds a parameter, "model/NAME", and the optimizer's states of it (states_at_beginning). T is float or
/// double.
template <class T>
void add_first(CheckpointStream& stream, const std::vector<NamedState>& states, const std::string& name,
               const Dims& dims, const std::vector<T>& values);

}  // namespace conclave
