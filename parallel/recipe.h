// The section `parallel` of a recipe: what it says of ranks.
#pragma once

#include <array>
#include <cstdint>

#include "framework/base/words.h"
#include "parallel/mesh.h"

namespace conclave {

class Requirements;
class Visitor;

/// The dispatcher brings tokens to experts on other ranks.
enum class DispatcherKind { all_to_all, all_gather };
constexpr auto words_of(DispatcherKind) {
  return std::array{Word{DispatcherKind::all_to_all, "all_to_all"},
                    Word{DispatcherKind::all_gather, "all_gather"}};
}

struct ParallelRecipe {
  std::int64_t tensor = 1;
  std::int64_t expert = 1;
  std::int64_t expert_tensor = 1;
  bool sequence = false;
  std::int64_t zero = 0;
  DispatcherKind dispatcher = DispatcherKind::all_to_all;
  std::int64_t dispatch_rows = 0;  // the most rows a rank receives from all_to_all at once; 0: no bound
  bool operator==(const ParallelRecipe&) const = default;
};
void describe(Visitor& v, ParallelRecipe& p);
/// Checks what its keys mean together on so many ranks. Throws Fault::request for the first thing that is
/// impossible.
void require_possible(const Requirements& r, const ParallelRecipe& p, std::int64_t ranks);

/// Says how a recipe folds the ranks.
MeshDegrees degrees_of(const ParallelRecipe& parallel);

}  // namespace conclave
