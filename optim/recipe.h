// The section `optimizer` of a recipe: what it says of how weights change.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "framework/base/words.h"

namespace conclave {

class Requirements;
class Visitor;

enum class ScheduleKind { constant, linear, cosine, wsd };
constexpr auto words_of(ScheduleKind) {
  return std::array{Word{ScheduleKind::constant, "constant"}, Word{ScheduleKind::linear, "linear"},
                    Word{ScheduleKind::cosine, "cosine"}, Word{ScheduleKind::wsd, "wsd"}};
}

struct ScheduleRecipe {
  ScheduleKind kind = ScheduleKind::cosine;
  std::int64_t warmup_steps = 0;
  double min_lr_ratio = 0.1;
  std::int64_t decay_steps = 0;  // wsd: length of the final decay; 0: a tenth of the steps
  bool operator==(const ScheduleRecipe&) const = default;
};
void describe(Visitor& v, ScheduleRecipe& s);

/// Parameters whose name matches the pattern (* stands for any text) leave the defaults of the optimizer.
struct ParameterGroupRecipe {
  std::string pattern;
  double lr_scale = 1.0;
  double weight_decay = -1.0;  // below zero: the optimizer's
  bool frozen = false;
  bool operator==(const ParameterGroupRecipe&) const = default;
};
void describe(Visitor& v, ParameterGroupRecipe& g);

struct OptimizerRecipe {
  std::string kind = "adamw";
  double lr = 3.0e-3;
  std::vector<double> betas = {0.9, 0.95};
  double eps = 1.0e-8;
  double weight_decay = 0.1;  // decoupled; never on norms and biases
  double grad_clip = 1.0;     // global norm; 0: no clipping
  ScheduleRecipe schedule;
  std::vector<ParameterGroupRecipe> groups;  // the first match counts
  bool operator==(const OptimizerRecipe&) const = default;
};
void describe(Visitor& v, OptimizerRecipe& o);
/// Checks what its keys mean together in a run of so many steps. Throws Fault::request for the first thing
/// that is impossible.
void require_possible(const Requirements& r, const OptimizerRecipe& o, std::int64_t steps);

/// Returns the values of optimizer.kind, which are the names in the list of optimizers (optimizers.cpp).
std::vector<std::string> optimizer_names();

}  // namespace conclave
