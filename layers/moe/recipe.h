// What a recipe says of experts: the section `model.moe`.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "framework/base/words.h"
#include "layers/recipe.h"

namespace conclave {

/// The tokens whose load a bias follows.
enum class BiasScope { sequence, micro_batch, data_parallel, global_batch };
constexpr auto words_of(BiasScope) {
  return std::array{Word{BiasScope::sequence, "sequence"}, Word{BiasScope::micro_batch, "micro_batch"},
                    Word{BiasScope::data_parallel, "data_parallel"},
                    Word{BiasScope::global_batch, "global_batch"}};
}

/// A bias on the choice of experts alone, moved against their load after each step; no gradient, no loss.
struct SelectionBiasRecipe {
  double rate = 0;  // 0: no bias
  BiasScope scope = BiasScope::global_batch;
  bool recentre = false;        // keep the mean over experts at zero
  std::int64_t last_step = -1;  // stands still after this step; -1: moves to the end
  bool operator==(const SelectionBiasRecipe&) const = default;
};
void describe(Visitor& v, SelectionBiasRecipe& b);

/// Experts that a document's tokens may use, the same for all of them (EMO); maximum 0: all experts.
struct PoolRecipe {
  std::int64_t minimum = 0;     // in training as many as a uniform draw from here ...
  std::int64_t maximum = 0;     // ... to here says, for each document and layer
  std::int64_t evaluation = 0;  // outside of training
  bool operator==(const PoolRecipe&) const = default;
};
void describe(Visitor& v, PoolRecipe& p);

/// How logits become scores.
enum class RouterKind { softmax, sigmoid };
constexpr auto words_of(RouterKind) {
  return std::array{Word{RouterKind::softmax, "softmax"}, Word{RouterKind::sigmoid, "sigmoid"}};
}

struct RouterRecipe {
  RouterKind kind = RouterKind::softmax;
  bool norm_topk_prob = true;
  double routed_scaling_factor = 1.0;  // on the weights of the chosen experts
  std::int64_t n_group = 1;            // groups of experts, of which a token's experts come from ...
  std::int64_t topk_group = 1;         // ... so many
  double z_loss_coefficient = 0.001;
  SelectionBiasRecipe bias;
  PoolRecipe pool;
  bool operator==(const RouterRecipe&) const = default;
};
void describe(Visitor& v, RouterRecipe& r);

/// The tokens that a token is balanced with.
enum class BalanceScope { sequence, micro_batch, group, data_parallel, shuffle, global_batch };
constexpr auto words_of(BalanceScope) {
  return std::array{
      Word{BalanceScope::sequence, "sequence"}, Word{BalanceScope::micro_batch, "micro_batch"},
      Word{BalanceScope::group, "group"},       Word{BalanceScope::data_parallel, "data_parallel"},
      Word{BalanceScope::shuffle, "shuffle"},   Word{BalanceScope::global_batch, "global_batch"}};
}

/// How the scope global_batch sees what is to come.
enum class Estimator { running, warm, lagged, exact };
constexpr auto words_of(Estimator) {
  return std::array{Word{Estimator::running, "running"}, Word{Estimator::warm, "warm"},
                    Word{Estimator::lagged, "lagged"}, Word{Estimator::exact, "exact"}};
}

/// One term of the load-balancing loss; several may act at once.
struct BalanceRecipe {
  BalanceScope scope = BalanceScope::global_batch;
  Estimator estimator = Estimator::warm;
  double coefficient = 0.01;
  std::int64_t first_step = 0;          // acts from this step, the first being 0 ...
  std::int64_t last_step = -1;          // ... to this one; -1: to the end
  std::int64_t balance_batch_size = 0;  // sequences per group, for the scope "group"
  std::int64_t expert_groups = 0;       // even the load of so many groups of experts; 0: of each expert
  bool operator==(const BalanceRecipe&) const = default;
};
void describe(Visitor& v, BalanceRecipe& b);

/// What auxiliary losses are over layers.
enum class LayerReduction { sum, mean };
constexpr auto words_of(LayerReduction) {
  return std::array{Word{LayerReduction::sum, "sum"}, Word{LayerReduction::mean, "mean"}};
}

struct MoeRecipe {
  std::int64_t num_experts = 16;
  std::int64_t num_experts_per_tok = 2;
  std::int64_t moe_intermediate_size = 128;
  std::int64_t num_shared_experts = 0;
  std::int64_t first_k_dense_replace = 0;
  double capacity_factor = 0;  // places of an expert in a sequence, relative to an even share; 0: no bound
  LayerReduction layer_reduction = LayerReduction::sum;
  RouterRecipe router;
  std::vector<BalanceRecipe> balance = {BalanceRecipe{}};
  bool operator==(const MoeRecipe&) const = default;
};
void describe(Visitor& v, MoeRecipe& m);

/// The section `model`.
struct ModelRecipe : TransformerRecipe {
  MoeRecipe moe;
  bool operator==(const ModelRecipe&) const = default;
};
void describe(Visitor& v, ModelRecipe& m);
/// What its keys mean together. Fault::request for the first thing that is impossible.
void require_possible(const Requirements& r, const ModelRecipe& m);
/// An expert must have a place in a sequence of this length.
void require_capacity(const Requirements& r, const MoeRecipe& moe, std::int64_t sequence_length);

/// A sentence where the language-model loss trains no router, or "".
std::string untrained_router_warning(const ModelRecipe& model);
/// Sentences about terms of the balance loss that do not do what they seem to.
std::vector<std::string> balance_warnings(const MoeRecipe& moe);

/// Blocks with experts.
std::int64_t count_moe_layers(const ModelRecipe& model);

/// Fault::request where the sizes multiply to more than 2^54 parameters, beyond which bytes cannot be
/// counted.
void check_size(const ModelRecipe& model);

/// The most assignments that an expert takes from one sequence when model.moe.capacity_factor is above 0:
/// floor(capacity_factor * sequence_length * top_k / experts), and never more than the sequence has tokens.
inline std::int64_t expert_capacity(double capacity_factor, std::int64_t sequence_length, std::int64_t top_k,
                                    std::int64_t experts) {
  const double length = static_cast<double>(sequence_length);
  // The little more makes 0.29 of 100 places 29, although no binary fraction is 0.29.
  const double places =
      std::floor(capacity_factor * length * static_cast<double>(top_k) / static_cast<double>(experts) + 1e-9);
  return static_cast<std::int64_t>(std::min(places, length));
}

}  // namespace conclave
