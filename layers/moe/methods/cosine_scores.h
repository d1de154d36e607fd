// The router of X-MoE (Chi et al., arXiv 2204.09179): an expert's score is the cosine of the angle between a
// projection of the token and an embedding of the expert, over a temperature that is learned.
#pragma once

#include <cstdint>

#include "framework/recipe/requirements.h"

namespace conclave {

struct CosineScoreRecipe {
  static constexpr const char* kind = "cosine";
  std::int64_t width = 16;   // of the space in which angles are taken
  double temperature = 0.3;  // at first; statistics always take it
  bool operator==(const CosineScoreRecipe&) const = default;
};

/// A learned temperature acts as this where it has become smaller.
constexpr double least_temperature = 1e-4;

inline void describe(Visitor& v, CosineScoreRecipe& c) {
  v.key({"width", &c.width, "numbers that a token's state is projected to before angles are taken", size()});
  v.key({"temperature", &c.temperature,
         "what cosines are divided by at first; it is learned, but the balance loss goes on with this one",
         at_least(least_temperature)});
}

}  // namespace conclave
