// Bench: what the subjects of `conclave bench` are given, and where their figures gather. A subject is a
// function that measures one side of Conclave beside what limits it; all ranks call it, rank 0's figures are
// the ones that are told. All of them are collective.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "launch/tools/bench/figure.h"
#include "launch/tools/bench/products.h"
#include "launch/train/recipe.h"
#include "launch/train/trainer.h"
#include "parallel/mesh.h"

namespace conclave {

struct Bench {
  Recipe recipe;
  Mesh& mesh;
  std::int64_t repeats = 5;
  std::int64_t steps = 10;            // of training, timed
  std::int64_t settle = 0;            // of training before those: a new router has yet to learn balance
  std::filesystem::path directory{};  // where checkpoints are written; it exists
  std::vector<Figure> figures{};
  BestProducts best{};  // of this rank in fp32, in the whole run
};

/// fp32, bf16 and fp64, square and as the recipe's layers multiply, each beside the best fp32 rate of the
/// same repeat. Of one rank, while the others do the same.
void bench_products(Bench& bench);

/// Copying, adding and the optimizer's arithmetic, beside a plain loop over three arrays (the triad of
/// McCalpin's STREAM). Of one rank, while the others do the same.
void bench_memory(Bench& bench);

/// Collectives through our communicator, beside bare MPI calls of the same size. Nothing on one rank.
void bench_collectives(Bench& bench);

/// Saving a run's state, beside writing and syncing as many bytes plainly, and how long training waits for it
/// when it goes on, beside copying as many bytes in memory.
void bench_checkpoint(Bench& bench);

/// Forward and backward of one layer of each kind, beside its matrix products alone.
void bench_layers(Bench& bench);

/// Steps of the recipe: model flops beside matrix products, its router beside forced balance, memory beside
/// the plan, and what a balance loss over the global batch adds on the network.
void bench_training(Bench& bench);

/// What `conclave bench` trains when no recipe is given: the model and batch of examples/benchmark.yaml, so
/// that an installed command needs no files.
Recipe benchmark_recipe();

/// Tokens drawn by Zipf's law, one document per sequence: sequences first .. first + count - 1 of a step's
/// global batch.
Batch bench_batch(const Recipe& recipe, std::int64_t step, std::int64_t first, std::int64_t count);
Trainer::BatchSource bench_batches(const Recipe& recipe);

/// Uniform in -1/2 .. 1/2, of a floating-point type.
Tensor random_tensor(Shape shape, DType dtype);

/// The sum of all ranks' numbers, on all of them. Collective.
double sum_over_ranks(Communicator& world, double value);

}  // namespace conclave
