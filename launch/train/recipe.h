// Recipe: everything a run is told, as plain structs with the defaults in place. Names follow the YAML keys
// one to one (a C++ keyword aside), and the YAML keys follow Hugging Face model configs where one exists. The
// sections stand beside the code that reads them, each with its keys, their meaning and its rules. This file
// has the sections of the run itself, and the whole.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "framework/base/words.h"
#include "framework/data/recipe.h"
#include "framework/device/device.h"
#include "framework/recipe/places.h"
#include "layers/moe/recipe.h"
#include "optim/recipe.h"
#include "parallel/recipe.h"

namespace conclave {

/// The devices that a recipe may name; plans alone run on the counting one.
constexpr auto words_of(DeviceKind) {
  return std::array{Word{DeviceKind::cpu, "cpu"}, Word{DeviceKind::emulated, "emulated"},
                    Word{DeviceKind::cuda, "cuda"}};
}

/// A run computes in this format; bf16 has fp32 master weights.
enum class NumberFormat { fp32, bf16, fp64 };
constexpr auto words_of(NumberFormat) {
  return std::array{Word{NumberFormat::fp32, "fp32"}, Word{NumberFormat::bf16, "bf16"},
                    Word{NumberFormat::fp64, "fp64"}};
}

struct TrainingRecipe {
  std::int64_t global_batch_size = 32;
  std::int64_t micro_batch_size = 4;
  std::int64_t steps = 300;
  std::uint64_t seed = 1234;
  DeviceKind device = DeviceKind::cpu;
  NumberFormat precision = NumberFormat::fp32;
  std::int64_t threads = 0;  // per rank; 0: the cores shared evenly over the ranks of the node
  Recompute recompute = Recompute::none;
  double lm_z_loss_coefficient = 0.0;
  std::int64_t skip_limit = 3;      // steps skipped in a row, after which the run goes back to a checkpoint
  std::int64_t rollback_limit = 2;  // how often it may go back before it gives up
  std::int64_t replica_check_interval = 100;  // steps between comparisons of replicas; 0: never
  double watchdog_seconds = 600;              // without progress for so long, the job is ended; 0: off
  std::string time_limit = "0";               // seconds or a duration as in Slurm; 0: none
  BatchRampRecipe batch_ramp;
  bool operator==(const TrainingRecipe&) const = default;
};
void describe(Visitor& v, TrainingRecipe& t);

/// Returns the number of sequences in the global batch of a 0-based step.
std::int64_t batch_size_at(const TrainingRecipe& training, std::int64_t step);

struct CheckpointRecipe {
  std::int64_t interval = 100;  // steps; 0: only at the end
  std::int64_t keep = 3;        // newest checkpoints kept; 0: all
  bool resume = true;
  bool asynchronous = true;     // write while the next steps run
  std::string initialize_from;  // another run, for a run directory that has no checkpoint; empty: none
  std::vector<std::string> take = {"parameters"};  // from there: parameters, optimizer, data_position
  std::vector<std::string> accept_changes;         // keys that a resume may find changed
  bool operator==(const CheckpointRecipe&) const = default;
};
void describe(Visitor& v, CheckpointRecipe& c);

struct EvaluationRecipe {
  std::int64_t interval = 50;  // steps; 0: only at the end
  std::int64_t batches = 8;    // global batches per domain; 0: the whole validation text
  bool operator==(const EvaluationRecipe&) const = default;
};
void describe(Visitor& v, EvaluationRecipe& e);

struct LoggingRecipe {
  std::int64_t interval = 1;  // steps
  bool tensorboard = false;   // event files beside metrics.jsonl
  std::int64_t dead_expert_steps =
      100;               // without a token for so long, an expert is named in the log; 0: never
  bool profile = false;  // where the time of the steps goes, in profile.txt and trace.json
  bool samples = false;  // which training sequences each step took, in samples.jsonl
  bool operator==(const LoggingRecipe&) const = default;
};
void describe(Visitor& v, LoggingRecipe& l);

struct Recipe {
  std::string name = "run";
  ModelRecipe model;
  DataRecipe data;
  ParallelRecipe parallel;
  TrainingRecipe training;
  OptimizerRecipe optimizer;
  CheckpointRecipe checkpoint;
  EvaluationRecipe evaluation;
  LoggingRecipe logging;
  std::string output = "runs/run";
  KeyPlaces places;
  bool operator==(const Recipe&) const = default;
};
void describe(Visitor& v, Recipe& r);

}  // namespace conclave
