// Resumption: what a run goes on from besides its tensors. Its data go on where the checkpoint ends, and each
// difference between the two recipes is told. Differences that would give the weights or the counts another
// meaning are refused unless the recipe accepts them.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "framework/data/dataset.h"
#include "framework/store/checkpoint_file.h"
#include "launch/train/recipe.h"

namespace conclave {

/// Returns the fingerprint of the tokenizer that a checkpoint was trained with; empty where it is not known.
std::string recorded_tokenizer(const CheckpointReader& checkpoint);

/// Returns where the data of a checkpoint's run stand. A checkpoint without a position gets the one that its
/// own recipe and step imply.
DataPosition data_position_of(const CheckpointReader& checkpoint);

/// Gives what the checkpoints of a run say of its data, as a function of the steps that it has done.
std::function<Attributes(std::int64_t steps_done)> data_attributes(const Recipe& recipe, TrainingData& data);

/// Lets the data of a run go on where its checkpoint ends. Returns a sentence for each difference between the
/// checkpoint's recipe and this one; a difference that must not be is a Fault::request.
std::vector<std::string> resume_data(const CheckpointReader& checkpoint, const Recipe& recipe,
                                     TrainingData& data);

/// Does so for a new run that takes things from another run's checkpoint. It tells only the differences that
/// give what it takes another meaning.
std::vector<std::string> take_data(const CheckpointReader& checkpoint, const Recipe& recipe,
                                   TrainingData& data);

}  // namespace conclave
