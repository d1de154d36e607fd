// Trainers of the tiny recipe on synthetic batches, and how their tensors are compared.
#pragma once

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "launch/train/trainer.h"
#include "tests/launch/synthetic.h"

namespace conclave::test {

inline Trainer::BatchSource synthetic_batches(const Recipe& recipe) {
  return [recipe](std::int64_t step, std::int64_t first, std::int64_t count) {
    return synthetic_batch(recipe, step, first, count);
  };
}

inline std::unique_ptr<Trainer> make_trainer(const Recipe& recipe, Mesh& mesh,
                                             Device& device = cpu_device()) {
  return std::make_unique<Trainer>(recipe, mesh, synthetic_batches(recipe), device);
}

/// How a recipe lays out a model, as tests call it.
inline std::string name_of(const Recipe& recipe) {
  const ParallelRecipe& p = recipe.parallel;
  return join_text("tensor ", p.tensor, ", expert ", p.expert, ", expert_tensor ", p.expert_tensor,
                   p.sequence ? ", sequence" : "", ", zero ", p.zero, ", ", p.dispatcher, " ",
                   p.dispatch_rows, ", recompute ", recipe.training.recompute, ", micro-batches of ",
                   recipe.training.micro_batch_size);
}

/// The largest difference of two tensors of equal size over the largest element that was wanted.
template <class T>
T worst_difference(const std::vector<T>& got, const std::vector<T>& wanted) {
  T worst = 0, largest = static_cast<T>(1e-30);
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    worst = std::max(worst, std::abs(got[i] - wanted[i]));
    largest = std::max(largest, std::abs(wanted[i]));
  }
  return worst / largest;
}

}  // namespace conclave::test
