#include "layers/moe/recipe.h"

#include <algorithm>
#include <cmath>
#include <initializer_list>

#include "framework/base/error.h"
#include "framework/recipe/nearest.h"
#include "framework/recipe/requirements.h"
#include "layers/moe/methods/capacity.h"
#include "layers/moe/methods/routing_groups.h"
#include "layers/moe/methods/z_loss.h"

namespace conclave {

void describe(Visitor& v, RouterRecipe& r) {
  v.key({"kind",
         &r.kind,
         "how logits become scores: softmax or sigmoid",
         {},
         {.gives_meaning_to = Saved::weights}});
  v.key({"norm_topk_prob",
         &r.norm_topk_prob,
         "weights of the chosen experts are made to sum to 1",
         {},
         {.gives_meaning_to = Saved::weights}});
  v.key({"routed_scaling_factor",
         &r.routed_scaling_factor,
         "factor on the weights of the chosen experts",
         above(0),
         {.gives_meaning_to = Saved::weights}});
  describe_routing_groups(v, r);
  describe_z_loss(v, r.z_loss_coefficient);
  section(v, "bias", r.bias, "balancing without a loss: a bias on the choice, moved against the load");
  choice(v, "score", r.score, "how experts are scored: linear, or cosine (X-MoE)");
  section(v, "vocabulary", r.vocabulary, "experts that a token may use, drawn by its id (MaskMoE)");
  section(v, "pool", r.pool, "experts that all tokens of a document choose from, drawn in size (EMO)");
}

void describe(Visitor& v, BalanceRecipe& b) {
  v.key({"scope", &b.scope,
         "the tokens that a token is balanced with: sequence, micro_batch, group, data_parallel, "
         "shuffle (as many as a micro-batch, from anywhere in the step) or global_batch"});
  v.key({"estimator", &b.estimator,
         "how global_batch foresees later micro-batches: running, warm, lagged or exact"});
  v.key({"coefficient", &b.coefficient, "weight of this term in the loss", at_least(0)});
  v.key({"first_step", &b.first_step, "the term acts from this step, the first being 0", count_or_zero()});
  v.key({"last_step",
         &b.last_step,
         "to this step, included; -1: to the end",
         {.least = -1, .most = largest_count}});
  v.key({"balance_batch_size", &b.balance_batch_size, "sequences per group, for the scope group",
         size_or_zero()});
  v.key({"expert_groups", &b.expert_groups,
         "evens the load of so many groups of consecutive experts, their members free: DeepSeekMoE's "
         "device-level loss; 0: of each expert",
         size_or_zero()});
}

void describe(Visitor& v, MoeRecipe& m) {
  v.key({"num_experts", &m.num_experts, "routed experts of a block", size()});
  v.key({"num_experts_per_tok",
         &m.num_experts_per_tok,
         "experts that each token is sent to",
         size(),
         {.other_names = {"top_k"}, .gives_meaning_to = Saved::weights}});
  v.key({"moe_intermediate_size", &m.moe_intermediate_size, "inner width of one expert", size()});
  v.key({"num_shared_experts", &m.num_shared_experts, "experts that see every token", size_or_zero()});
  v.key({"first_k_dense_replace", &m.first_k_dense_replace, "leading blocks that keep a dense MLP",
         size_or_zero()});
  v.key({"dense_layers", &m.dense_layers, "further blocks, from 0, that keep a dense MLP", size_or_zero()});
  describe_capacity(v, m.capacity_factor);
  v.key({"layer_reduction", &m.layer_reduction, "auxiliary losses over layers: sum or mean"});
  section(v, "router", m.router, "which experts a token goes to");
  list(v, "balance", m.balance, "terms of the load-balancing loss, all acting at once");
  describe(v, m.methods);
}

void describe(Visitor& v, ModelRecipe& m) {
  describe(v, static_cast<TransformerRecipe&>(m));
  section(v, "moe", m.moe, "the experts");
}

namespace {

void require_routing(const Requirements& r, const MoeRecipe& moe) {
  r.require(moe.num_experts_per_tok <= moe.num_experts, "model.moe.num_experts_per_tok",
            moe.num_experts_per_tok, " experts per token came, but model.moe.num_experts is ",
            moe.num_experts, "; expected at most that many");
}

void require_balance(const Requirements& r, const MoeRecipe& moe) {
  for (std::size_t i = 0; i < moe.balance.size(); ++i) {
    const BalanceRecipe& term = moe.balance[i];
    const std::string key = "model.moe.balance." + std::to_string(i);
    r.require(term.last_step == -1 || term.last_step >= term.first_step, key + ".last_step", term.last_step,
              " lies before first_step: ", term.first_step, "; expected -1 or a later step");
    r.require(term.scope != BalanceScope::group || term.balance_batch_size >= 1, key + ".balance_batch_size",
              "0 came, but the scope 'group' needs the sequences of a group; expected at least 1");
    r.require(term.scope == BalanceScope::group || term.balance_batch_size == 0, key + ".balance_batch_size",
              term.balance_batch_size, " came with the scope '", term.scope,
              "', but this key belongs to the scope 'group'; expected 0");
    const std::int64_t groups = term.expert_groups;
    r.require(groups != 1, key + ".expert_groups",
              "1 came, but one group of all experts is always even; expected 0, or a divisor of "
              "model.moe.num_experts above 1");
    r.require(groups == 0 || moe.num_experts % groups == 0, key + ".expert_groups", groups,
              " does not divide model.moe.num_experts: ", moe.num_experts);
  }
}

}  // namespace

void require_possible(const Requirements& r, const ModelRecipe& m) {
  const MoeRecipe& moe = m.moe;
  require_routing(r, moe);
  require_routing_groups(r, moe);
  require_pools(r, moe);
  require_vocabulary_mask(r, moe);
  r.require(moe.first_k_dense_replace <= m.num_hidden_layers, "model.moe.first_k_dense_replace",
            moe.first_k_dense_replace, " dense blocks came, but model.num_hidden_layers is ",
            m.num_hidden_layers);
  require_blocks(r, "model.moe.dense_layers", moe.dense_layers, m.num_hidden_layers);
  require_possible(r, static_cast<const TransformerRecipe&>(m));
  require_balance(r, moe);
  check_size(m);
}

void require_possible(const Requirements& r, const MoeRecipe& moe, std::int64_t sequence_length) {
  require_capacity(r, moe, sequence_length);
}

namespace {

/// The weight of a token's only expert is always 1 where it is divided by itself, or where a softmax goes
/// over a pool of one expert. The loss of the text then does not depend on the router's scores.
bool routers_learn_nothing_from_text(const ModelRecipe& model) {
  const RouterRecipe& router = model.moe.router;
  if (count_moe_layers(model) == 0 || model.moe.num_experts_per_tok != 1 || model.moe.num_experts == 1)
    return false;
  return router.norm_topk_prob || router.pool.maximum == 1 || router.vocabulary.visible == 1;
}

}  // namespace

std::string untrained_router_warning(const ModelRecipe& model) {
  if (!routers_learn_nothing_from_text(model)) return "";
  const MoeRecipe& moe = model.moe;
  std::vector<std::string> losses;
  for (std::size_t i = 0; i < moe.balance.size(); ++i)
    if (moe.balance[i].coefficient > 0) losses.push_back(join_text("model.moe.balance.", i));
  if (moe.router.z_loss_coefficient > 0) losses.emplace_back("model.moe.router.z_loss_coefficient");
  return join_text(
      "model.moe.num_experts_per_tok: 1 with ",
      moe.router.norm_topk_prob            ? "model.moe.router.norm_topk_prob: true"
      : moe.router.vocabulary.visible == 1 ? "model.moe.router.vocabulary.visible: 1"
                                           : "model.moe.router.pool.maximum: 1",
      " makes the weight of a token's expert", " a constant, so the language-model loss trains no router. ",
      losses.empty() ? "No other loss trains them either: they stay as they were drawn, but for weight decay."
                     : "The routers' only gradients come from " + join_words(losses) +
                           ", which do not know which expert suits a token.",
      moe.router.norm_topk_prob
          ? " Expected norm_topk_prob: false, where the weight is the expert's probability, or more experts "
            "per token."
      : moe.router.vocabulary.visible == 1 ? " Expected more visible experts."
                                           : " Expected a larger pool or more experts per token.");
}

std::vector<std::string> balance_warnings(const MoeRecipe& moe) {
  std::vector<std::string> sentences;
  const std::vector<BalanceRecipe>& terms = moe.balance;
  for (std::size_t i = 0; i < terms.size(); ++i)  // the default may just have been left there
    if (terms[i].scope != BalanceScope::global_batch && terms[i].estimator != BalanceRecipe().estimator)
      sentences.push_back(join_text("model.moe.balance.", i, ".estimator: ", terms[i].estimator,
                                    " belongs to the scope global_batch and does nothing for ",
                                    terms[i].scope, ", whose counts are known in time."));
  if (moe.router.pool.maximum > 0) {
    for (std::size_t i = 0; i < terms.size(); ++i)
      if (terms[i].coefficient > 0 &&
          (terms[i].scope == BalanceScope::sequence || terms[i].scope == BalanceScope::micro_batch))
        sentences.push_back(join_text("model.moe.balance.", i, ".scope: ", terms[i].scope,
                                      " balances the experts of few documents, each of which "
                                      "model.moe.router.pool keeps to a few experts; expected a wider scope, "
                                      "data_parallel or global_batch."));
  }
  return sentences;
}

bool is_dense_block(const ModelRecipe& model, std::int64_t block) {
  const std::vector<std::int64_t>& more = model.moe.dense_layers;
  return block < model.moe.first_k_dense_replace || std::find(more.begin(), more.end(), block) != more.end();
}

std::vector<std::int64_t> moe_blocks(const ModelRecipe& model) {
  std::vector<std::int64_t> blocks;
  for (std::int64_t block = 0; block < model.num_hidden_layers; ++block)
    if (!is_dense_block(model, block)) blocks.push_back(block);
  return blocks;
}

std::int64_t count_moe_layers(const ModelRecipe& model) {
  const MoeRecipe& moe = model.moe;
  const auto further = std::count_if(moe.dense_layers.begin(), moe.dense_layers.end(),
                                     [&](std::int64_t block) { return block >= moe.first_k_dense_replace; });
  return model.num_hidden_layers - moe.first_k_dense_replace - static_cast<std::int64_t>(further);
}

bool dense_blocks_come_first(const ModelRecipe& model) {
  const std::int64_t dense = model.num_hidden_layers - count_moe_layers(model);
  for (std::int64_t block = 0; block < dense; ++block)
    if (!is_dense_block(model, block)) return false;
  return true;
}

void set_dense_blocks(ModelRecipe& model, const std::vector<std::int64_t>& blocks) {
  MoeRecipe& moe = model.moe;
  moe.first_k_dense_replace = 0;
  moe.dense_layers.clear();
  for (const std::int64_t block : blocks)
    if (block == moe.first_k_dense_replace && moe.dense_layers.empty())
      ++moe.first_k_dense_replace;
    else
      moe.dense_layers.push_back(block);
}

void check_size(const ModelRecipe& m) {
  const auto require_few = [](std::initializer_list<std::int64_t> factors) {
    double product = 1;
    for (const std::int64_t factor : factors) product *= static_cast<double>(factor);
    // A sum of eight such parts must fit too, in bytes and with the optimizer's moments.
    check(
        product < 0x1p54, Fault::request,
        "model: its sizes multiply to more than 2^54 parameters; expected a smaller vocab_size, hidden_size, "
        "moe_intermediate_size, num_experts or num_hidden_layers");
  };
  const std::int64_t layers = m.num_hidden_layers, hidden = m.hidden_size;
  require_few({m.vocab_size, hidden});
  require_few({layers, 2, hidden, m.head_dim, m.num_attention_heads});
  require_few({layers, 3, hidden, m.intermediate_size});
  require_few({layers, 3, hidden, m.moe.moe_intermediate_size, m.moe.num_experts});
  require_few({layers, 3, hidden, m.moe.moe_intermediate_size, m.moe.num_shared_experts});
}

}  // namespace conclave
