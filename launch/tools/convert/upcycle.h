// Upcycling (Komatsuzaki et al., arXiv 2212.05055) makes experts of the MLP of a dense model. A copy of an
// MLP is cut into `parts` runs of its columns, one expert each. There are experts / parts copies, and expert
// c * parts + p is part p of copy c. All parts of a copy begin with the same router row. So the best top_k
// experts are whole copies where parts divides top_k (the virtual groups of He et al., arXiv 2410.07524).
// With down projections scaled by down_scale() the block then computes what the dense MLP did.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "launch/train/recipe.h"

namespace conclave {

struct UpcycleOptions {
  enum class Kind { copy, split } kind = Kind::copy;
  std::int64_t experts = 0, top_k = 0;
  std::int64_t parts = 0;    // of a copy; 0: top_k for split, 1 for copy
  double router_range = -1;  // standard deviation of the routers; below 0: initializer_range
  std::uint64_t seed = 1234;
};

/// Returns the number of parts, after checking that the options go together. Throws Fault::request where they
/// do not.
std::int64_t parts_of(const UpcycleOptions& options, const ModelRecipe& dense);

/// Returns the recipe of the model with experts. Router settings other than sizes are as they come.
ModelRecipe upcycled(const ModelRecipe& dense, const UpcycleOptions& options);

/// Returns the factor on down projections that makes up for the routing weights: parts / (their sum over
/// top_k equal experts). It is 1 for copies with weights that sum to 1.
double down_scale(const ModelRecipe& model, std::int64_t parts);

/// Makes a stack of experts [experts, ...] of a dense matrix. For gate_proj and up_proj [intermediate,
/// hidden], experts_of_rows gives each part some of the rows. For down_proj [hidden, intermediate],
/// experts_of_columns gives each part some of the columns, times `scale`.
template <class T>
std::vector<T> experts_of_rows(const std::vector<T>& dense, std::int64_t intermediate, std::int64_t hidden,
                               std::int64_t experts, std::int64_t parts);
template <class T>
std::vector<T> experts_of_columns(const std::vector<T>& dense, std::int64_t intermediate, std::int64_t hidden,
                                  std::int64_t experts, std::int64_t parts, double scale);

/// Makes a router [experts, hidden] named `name`, with one drawn row for each copy, for all of its parts.
template <class T>
std::vector<T> upcycled_router(const std::string& name, std::int64_t experts, std::int64_t hidden,
                               std::int64_t parts, double range, std::uint64_t seed);

}  // namespace conclave
