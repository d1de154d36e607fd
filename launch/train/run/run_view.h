// RunView: a training run as its observers see it.
#pragma once

#include <cstdint>

#include "framework/data/dataset.h"
#include "framework/telemetry/logger.h"
#include "launch/train/recipe.h"
#include "launch/train/rollbacks.h"
#include "launch/train/run/run_directory.h"
#include "launch/train/run/saves.h"
#include "launch/train/time_limit.h"
#include "launch/train/trainer.h"
#include "parallel/mesh.h"

namespace conclave {

struct RunView {
  const Recipe& recipe;
  Communicator& world;
  Mesh& mesh;
  Device& device;
  Logger& logger;
  TrainingData& training;
  const ValidationData* validation;  // null: none
  Trainer& trainer;
  RunDirectory* directory;  // null except on rank 0
  Saves& saves;
  Rollbacks& rollbacks;
  TimeLimit& time_limit;
  std::int64_t first_updates;  // of the optimizer, before the run's first step

  bool is_first_rank() const { return world.rank() == 0; }
};

/// Says whether something that is done at an interval, where 0 is never, is done at this step.
inline bool is_every(std::int64_t interval, std::int64_t step) {
  return interval > 0 && step % interval == 0;
}

/// Lets log.txt name the data that a step was made of. For one rank.
void log_data_of(const RunView& run, const StepResult& result);

}  // namespace conclave
