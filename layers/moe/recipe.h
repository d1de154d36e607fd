// The keys of the section `model.moe` of a recipe.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "framework/base/words.h"
#include "layers/moe/method_keys.h"
#include "layers/moe/methods/cosine_scores.h"
#include "layers/moe/methods/document_pools.h"
#include "layers/moe/methods/selection_bias.h"
#include "layers/moe/methods/vocabulary_mask.h"
#include "layers/recipe.h"

namespace conclave {

/// How logits become scores.
enum class RouterKind { softmax, sigmoid };
constexpr auto words_of(RouterKind) {
  return std::array{Word{RouterKind::softmax, "softmax"}, Word{RouterKind::sigmoid, "sigmoid"}};
}

/// A score for each expert that is linear in the token.
struct LinearScoreRecipe {
  static constexpr const char* kind = "linear";
  bool operator==(const LinearScoreRecipe&) const = default;
};
inline void describe(Visitor&, LinearScoreRecipe&) {}

/// How a router scores experts; methods add their own.
using ScoreRecipe = std::variant<LinearScoreRecipe, CosineScoreRecipe>;

struct RouterRecipe {
  RouterKind kind = RouterKind::softmax;
  bool norm_topk_prob = true;
  double routed_scaling_factor = 1.0;  // on the weights of the chosen experts
  std::int64_t n_group = 1;            // groups of experts, of which a token's experts come from ...
  std::int64_t topk_group = 1;         // ... so many
  double z_loss_coefficient = 0.001;
  SelectionBiasRecipe bias;
  PoolRecipe pool;
  ScoreRecipe score;
  VocabularyMaskRecipe vocabulary;
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

/// How the auxiliary losses of layers are joined.
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
  std::vector<std::int64_t> dense_layers;  // and these further blocks
  double capacity_factor = 0;  // places of an expert in a sequence, relative to an even share; 0: no bound
  LayerReduction layer_reduction = LayerReduction::sum;
  RouterRecipe router;
  std::vector<BalanceRecipe> balance = {BalanceRecipe{}};
  AllMethodKeys methods;  // of those that are not named here
  bool operator==(const MoeRecipe&) const = default;
};
void describe(Visitor& v, MoeRecipe& m);

/// The section `model`.
struct ModelRecipe : TransformerRecipe {
  MoeRecipe moe;
  bool operator==(const ModelRecipe&) const = default;
};
void describe(Visitor& v, ModelRecipe& m);
/// Checks what its keys mean together. Fault::request for the first thing that is impossible.
void require_possible(const Requirements& r, const ModelRecipe& m);
/// The same, of sequences of this length.
void require_possible(const Requirements& r, const MoeRecipe& moe, std::int64_t sequence_length);

/// A sentence where the language-model loss trains no router, or "".
std::string untrained_router_warning(const ModelRecipe& model);
/// Sentences about terms of the balance loss that do not do what they seem to.
std::vector<std::string> balance_warnings(const MoeRecipe& moe);

/// True for a block, from 0, that keeps a dense MLP. Everything that tells dense blocks from those with
/// experts asks here.
bool is_dense_block(const ModelRecipe& model, std::int64_t block);
/// The blocks with experts, in their order: block moe_blocks(model)[n] is the n-th layer of experts.
std::vector<std::int64_t> moe_blocks(const ModelRecipe& model);
/// Blocks with experts.
std::int64_t count_moe_layers(const ModelRecipe& model);
/// True where no dense block comes behind one with experts.
bool dense_blocks_come_first(const ModelRecipe& model);
/// Makes these blocks the dense ones: leading ones as first_k_dense_replace, others as dense_layers.
void set_dense_blocks(ModelRecipe& model, const std::vector<std::int64_t>& blocks);

/// Fault::request where the sizes multiply to more than 2^54 parameters, beyond which bytes cannot be
/// counted.
void check_size(const ModelRecipe& model);

}  // namespace conclave
