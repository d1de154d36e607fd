// Bench: what the subjects of `conclave bench` are given, and where their figures gather. A subject is a
// function that measures one side of Conclave beside what limits it. All ranks call it, and the figures of
// rank 0 are the ones that are told. All subjects are collective.
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
  Device& device;
  std::int64_t repeats = 5;
  std::int64_t steps = 10;            // of training, timed
  std::int64_t settle = 0;            // of training before those: a new router has yet to learn balance
  std::filesystem::path directory{};  // where checkpoints are written; it exists
  std::vector<Figure> figures{};
  BestProducts best{};  // of this rank in fp32, in the whole run
};

/// Measures products in fp32, bf16 and, on the CPU, fp64, square and as the recipe's layers multiply. Each
/// stands beside the best fp32 rate of the same repeat. One rank's rates are measured, while the others do
/// the same.
void bench_products(Bench& bench);

/// Measures the kernels of a step, forward and backward, in the recipe's shapes and precision. Each stands
/// beside its roofline: the bytes that it has to move at the best rate of a copy, or its operations at the
/// rate of the best product, whichever takes longer. One rank's times are measured.
void bench_kernels(Bench& bench);

/// Measures copying, adding and the optimizer's arithmetic, beside a plain loop over three arrays (the triad
/// of McCalpin's STREAM), or on another device beside its own copy. One rank's rates are measured, while the
/// others do the same.
void bench_memory(Bench& bench);

/// Measures collectives through our communicator, beside bare MPI calls of the same size. On one rank there
/// is nothing to measure.
void bench_collectives(Bench& bench);

/// Measures saving a run's state, beside writing and syncing as many bytes plainly. It also measures how long
/// training waits for a save when it goes on, beside copying as many bytes in memory.
void bench_checkpoint(Bench& bench);

/// Measures forward and backward of one layer of each kind, beside its matrix products alone.
void bench_layers(Bench& bench);

/// Measures steps of the recipe: model flops beside matrix products, its router beside forced balance, and
/// memory beside the plan. It also measures what a balance loss over the global batch adds on the network.
void bench_training(Bench& bench);

/// Measures a token of generation after a short and after a long text, and beside computing all anew. One
/// rank's times are measured, while the others do the same.
void bench_generation(Bench& bench);

/// Returns the recipe that `conclave bench` trains when none is given: the model and batch of
/// examples/benchmark.yaml. So an installed command needs no files.
Recipe benchmark_recipe();

/// Draws tokens by Zipf's law, one document per sequence: sequences first .. first + count - 1 of a step's
/// global batch.
Batch bench_batch(const Recipe& recipe, std::int64_t step, std::int64_t first, std::int64_t count);
Trainer::BatchSource bench_batches(const Recipe& recipe);

/// Draws numbers uniformly in -1/2 .. 1/2, of a floating-point type.
Tensor random_tensor(Shape shape, DType dtype, Device& device = cpu_device());

/// Returns the sum of all ranks' numbers, on all of them. Collective.
double sum_over_ranks(Communicator& world, double value);

}  // namespace conclave
