#include "framework/recipe/recipe_rules.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include "framework/base/error.h"
#include "framework/base/paths.h"
#include "framework/recipe/domain.h"
#include "framework/recipe/duration.h"
#include "framework/recipe/model_size.h"
#include "framework/recipe/nearest.h"
#include "framework/recipe/recipe_text.h"
#include "framework/recipe/requirements.h"

namespace conclave {
namespace {

void validate_pool(const Requirements& r, const MoeRecipe& moe) {
  const PoolRecipe& pool = moe.router.pool;
  const std::string key = "model.moe.router.pool";
  if (pool.maximum == 0) {
    r.require(pool.minimum == 0, key + ".maximum", "0 means no pools, but minimum is ", pool.minimum,
              "; expected the most experts in a pool, or minimum: 0");
    r.require(pool.evaluation == 0, key + ".maximum", "0 means no pools, but evaluation is ", pool.evaluation,
              "; expected the most experts in a pool, or evaluation: 0");
    return;
  }
  const std::int64_t top_k = moe.num_experts_per_tok;
  r.require(pool.minimum >= top_k && pool.minimum <= pool.maximum, key + ".minimum", pool.minimum,
            " came, expected at least model.moe.num_experts_per_tok: ", top_k,
            " and at most maximum: ", pool.maximum);
  // EMO draws up to the number of all experts, shared ones included; from the routed ones on, nothing is
  // masked.
  r.require(pool.maximum <= moe.num_experts + moe.num_shared_experts, key + ".maximum", pool.maximum,
            " came, expected at most model.moe.num_experts and num_shared_experts together: ",
            moe.num_experts + moe.num_shared_experts);
  r.require(pool.evaluation >= top_k && pool.evaluation <= moe.num_experts, key + ".evaluation",
            pool.evaluation, " came, expected at least model.moe.num_experts_per_tok: ", top_k,
            " and at most model.moe.num_experts: ", moe.num_experts);
  r.require(moe.router.kind == "softmax", key, "pools came with model.moe.router.kind: ", moe.router.kind,
            ", but a pool is chosen by softmax probabilities; expected softmax, or maximum: 0");
  r.require(moe.router.n_group == 1, key, "pools came with model.moe.router.n_group: ", moe.router.n_group,
            "; a choice within groups may find too few experts of the pool; expected 1, or maximum: 0");
}

void validate_model(const Requirements& r, const ModelRecipe& m) {
  const MoeRecipe& moe = m.moe;
  r.require(moe.num_experts_per_tok <= moe.num_experts, "model.moe.num_experts_per_tok",
            moe.num_experts_per_tok, " experts per token came, but model.moe.num_experts is ",
            moe.num_experts, "; expected at most that many");
  const RouterRecipe& router = moe.router;
  r.require(moe.num_experts % router.n_group == 0, "model.moe.router.n_group", router.n_group,
            " does not divide model.moe.num_experts: ", moe.num_experts);
  r.require(router.topk_group <= router.n_group, "model.moe.router.topk_group", router.topk_group,
            " came, expected at most model.moe.router.n_group: ", router.n_group);
  r.require(moe.num_experts_per_tok <= moe.num_experts / router.n_group * router.topk_group,
            "model.moe.router.topk_group", router.topk_group, " groups of ", moe.num_experts / router.n_group,
            " experts cannot give a token model.moe.num_experts_per_tok: ", moe.num_experts_per_tok);
  validate_pool(r, moe);
  r.require(moe.first_k_dense_replace <= m.num_hidden_layers, "model.moe.first_k_dense_replace",
            moe.first_k_dense_replace, " dense blocks came, but model.num_hidden_layers is ",
            m.num_hidden_layers);
  r.require(m.num_attention_heads % m.num_key_value_heads == 0, "model.num_key_value_heads",
            m.num_key_value_heads,
            " key-value heads cannot be shared evenly by model.num_attention_heads: ", m.num_attention_heads,
            "; expected a divisor of ", m.num_attention_heads);
  r.require(m.head_dim % 2 == 0, "model.head_dim", m.head_dim,
            " came, expected an even number: rotary positions turn pairs");
  r.require(rotary_width(m) >= 2 && rotary_width(m) % 2 == 0, "model.partial_rotary_factor",
            m.partial_rotary_factor, " of model.head_dim: ", m.head_dim, " is ", rotary_width(m),
            " elements; expected an even number of them: rotary positions turn pairs");
  for (std::size_t i = 0; i < moe.balance.size(); ++i) {
    const BalanceRecipe& term = moe.balance[i];
    const std::string key = "model.moe.balance." + std::to_string(i);
    r.require(term.last_step == -1 || term.last_step >= term.first_step, key + ".last_step", term.last_step,
              " lies before first_step: ", term.first_step, "; expected -1 or a later step");
    r.require(term.scope != "group" || term.balance_batch_size >= 1, key + ".balance_batch_size",
              "0 came, but the scope 'group' needs the sequences of a group; expected at least 1");
    r.require(term.scope == "group" || term.balance_batch_size == 0, key + ".balance_batch_size",
              term.balance_batch_size, " came with the scope '", term.scope,
              "', but this key belongs to the scope 'group'; expected 0");
    const std::int64_t groups = term.expert_groups;
    r.require(groups != 1, key + ".expert_groups",
              "1 came, but one group of all experts is always even; expected 0, or a divisor of "
              "model.moe.num_experts above 1");
    r.require(groups == 0 || moe.num_experts % groups == 0, key + ".expert_groups", groups,
              " does not divide model.moe.num_experts: ", moe.num_experts);
  }
  check_size(m);
}

void validate_data(const Requirements& r, const Recipe& recipe) {
  const DataRecipe& data = recipe.data;
  r.require(!data.train.empty(), "data.train",
            "no domain to train on came; expected a list such as [{path: data/english, domain: english}]");
  for (const auto& [key, sets] :
       {std::pair{"data.train", &data.train}, {"data.validation", &data.validation}}) {
    std::set<std::pair<std::string, std::string>> seen;  // a domain may have several shards
    for (std::size_t i = 0; i < sets->size(); ++i)
      r.require(seen.insert({(*sets)[i].domain, normal_path((*sets)[i].path)}).second,
                join_path(key, std::to_string(i)) + ".path", "'", (*sets)[i].path,
                "' came twice for the domain '", (*sets)[i].domain,
                "'; expected every shard of a domain once; weight says how often it is drawn");
  }
  for (std::size_t i = 0; i < data.validation.size(); ++i)
    r.require(domain_of(data.validation[i]) != mean_of_domains,
              join_path("data.validation", std::to_string(i)) + ".domain", "'", mean_of_domains,
              "' came, which is how metrics.jsonl calls the mean over all domains; expected another name");
  r.require(
      data.tokenizer != "bytes" || recipe.model.vocab_size >= 257, "model.vocab_size",
      recipe.model.vocab_size,
      " token ids came, but data.tokenizer: bytes needs at least 257, 256 bytes and the end of a document");
}

void validate_capacity(const Requirements& r, const Recipe& recipe) {
  const MoeRecipe& moe = recipe.model.moe;
  const std::int64_t length = recipe.data.sequence_length;
  const double even_share = static_cast<double>(length) * static_cast<double>(moe.num_experts_per_tok) /
                            static_cast<double>(moe.num_experts);
  r.require(moe.capacity_factor == 0 ||
                expert_capacity(moe.capacity_factor, length, moe.num_experts_per_tok, moe.num_experts) > 0,
            "model.moe.capacity_factor", moe.capacity_factor, " of an expert's even share of a sequence, ",
            even_share, " assignments (data.sequence_length: ", length,
            " times num_experts_per_tok: ", moe.num_experts_per_tok, " over num_experts: ", moe.num_experts,
            "), is less than one place, and everything would be dropped; expected at least ", 1 / even_share,
            ", or 0 to drop nothing");
}

void validate_layout(const Requirements& r, const Recipe& recipe, std::int64_t ranks) {
  const ParallelRecipe& p = recipe.parallel;
  const ModelRecipe& m = recipe.model;
  r.require(ranks % p.tensor == 0, "parallel.tensor", p.tensor, " does not divide ", ranks, " ranks");
  // Compared before they are multiplied: absurd degrees must not overflow.
  r.require(p.expert <= ranks && p.expert_tensor <= ranks && ranks % (p.expert * p.expert_tensor) == 0,
            "parallel.expert", p.expert, " times parallel.expert_tensor: ", p.expert_tensor,
            " does not divide ", ranks, " ranks");
  r.require(p.dispatch_rows == 0 || p.dispatcher == "all_to_all", "parallel.dispatch_rows", p.dispatch_rows,
            " came with the dispatcher '", p.dispatcher,
            "', which gathers all rows at once and keeps no bound; expected 0, or dispatcher: all_to_all");
  const auto divides = [&](const char* key, std::int64_t degree, const char* what, std::int64_t size) {
    r.require(size % degree == 0, key, degree, " does not divide ", what, ": ", size);
  };
  r.require(p.tensor == 1 || !m.qk_norm || m.qk_norm_over == "head", "parallel.tensor", p.tensor,
            " came with model.qk_norm_over: ", m.qk_norm_over,
            ", whose heads would lie on different ranks; expected 1, or qk_norm_over: head");
  divides("parallel.tensor", p.tensor, "model.num_attention_heads", m.num_attention_heads);
  divides("parallel.tensor", p.tensor, "model.num_key_value_heads", m.num_key_value_heads);
  divides("parallel.tensor", p.tensor, "model.vocab_size", m.vocab_size);
  divides("parallel.tensor", p.tensor, "the tokens of a micro-batch",
          recipe.training.micro_batch_size * recipe.data.sequence_length);
  if (m.moe.first_k_dense_replace > 0)
    divides("parallel.tensor", p.tensor, "model.intermediate_size", m.intermediate_size);
  divides("parallel.expert", p.expert, "model.moe.num_experts", m.moe.num_experts);
  divides("parallel.expert_tensor", p.expert_tensor, "model.moe.moe_intermediate_size",
          m.moe.moe_intermediate_size);
}

void validate_batches(const Requirements& r, const Recipe& recipe, std::int64_t ranks) {
  const TrainingRecipe& t = recipe.training;
  const BatchRampRecipe& ramp = t.batch_ramp;
  const std::int64_t replicas = ranks / recipe.parallel.tensor;
  const std::int64_t unit = t.micro_batch_size * replicas, block = recipe.data.domain_block;
  const auto divides = [&](const std::string& key, std::int64_t sequences) {
    r.require(sequences % unit == 0, key, sequences, " sequences cannot be shared evenly by ", replicas,
              " data-parallel ", replicas == 1 ? "rank" : "ranks", " in micro-batches of ",
              t.micro_batch_size, "; expected a multiple of ", unit, ", for example ",
              nearest_multiples(sequences, unit));
    r.require(block == 0 || sequences % block == 0, key, sequences,
              " sequences cannot be cut into blocks of data.domain_block: ", block,
              "; expected a multiple of ", block, ", for example ",
              block ? nearest_multiples(sequences, block) : "");
    const std::vector<BalanceRecipe>& terms = recipe.model.moe.balance;
    for (std::size_t i = 0; i < terms.size(); ++i) {
      const std::int64_t group = terms[i].balance_batch_size;
      r.require(group == 0 || sequences % group == 0, key, sequences,
                " sequences cannot be cut into groups of model.moe.balance.", i,
                ".balance_batch_size: ", group, "; expected a multiple of ", group, ", for example ",
                group ? nearest_multiples(sequences, group) : "");
    }
  };
  divides("training.global_batch_size", t.global_batch_size);
  if (ramp.start_batch_size > 0) {
    const std::string key = "training.batch_ramp.";
    r.require(ramp.start_batch_size <= t.global_batch_size, key + "start_batch_size", ramp.start_batch_size,
              " came, expected at most training.global_batch_size: ", t.global_batch_size);
    r.require(ramp.increment > 0, key + "increment", "0 came, expected the sequences to add each time");
    r.require(ramp.steps_per_increment > 0, key + "steps_per_increment",
              "0 came, expected the steps between two additions");
    divides(key + "start_batch_size", ramp.start_batch_size);
    divides(key + "increment", ramp.increment);
  } else {
    r.require(ramp.increment == 0 && ramp.steps_per_increment == 0, "training.batch_ramp.start_batch_size",
              "0 means no ramp, but increment or steps_per_increment is set; expected the first batch size");
  }
  const double tokens = static_cast<double>(t.steps) * static_cast<double>(t.global_batch_size) *
                        static_cast<double>(recipe.data.sequence_length);
  r.require(tokens < 9.0e18, "training.steps", t.steps, " steps of ", t.global_batch_size, " sequences of ",
            recipe.data.sequence_length, " tokens are more tokens than 64 bits can count");
}

void validate_checkpoint(const Requirements& r, const CheckpointRecipe& checkpoint) {
  for (std::size_t i = 0; i < checkpoint.accept_changes.size(); ++i) {
    const std::string& name = checkpoint.accept_changes[i];
    r.require(recipe_schema().is_key(name), join_path("checkpoint.accept_changes", std::to_string(i)), "'",
              name, "' is no key of a recipe", recipe_schema().suggestion(name));
  }
}

void validate_optimizer(const Requirements& r, const OptimizerRecipe& o, std::int64_t steps) {
  r.require(o.betas.size() == 2, "optimizer.betas", o.betas.size(),
            o.betas.size() == 1 ? " value" : " values", " came, expected two, for example [0.9, 0.95]");
  const ScheduleRecipe& s = o.schedule;
  const std::string key = "optimizer.schedule.";
  r.require(s.decay_steps == 0 || s.kind == "wsd", key + "decay_steps", s.decay_steps,
            " came, but the schedule '", s.kind, "' decays by training.steps; expected 0, or kind: wsd");
  r.require(s.decay_steps == 0 || s.decay_steps <= steps - s.warmup_steps, key + "decay_steps", s.decay_steps,
            " steps of decay came, but training.steps: ", steps, " leaves ", steps - s.warmup_steps,
            " after warm-up");
}

/// The weight of a token's only expert is always 1 where it is divided by itself, or where a softmax goes
/// over a pool of one expert. The loss of the text then does not depend on the router's scores.
bool routers_learn_nothing_from_text(const ModelRecipe& model) {
  const RouterRecipe& router = model.moe.router;
  if (count_moe_layers(model) == 0 || model.moe.num_experts_per_tok != 1 || model.moe.num_experts == 1)
    return false;
  return router.norm_topk_prob || router.pool.maximum == 1;
}

/// Why the routers learn nothing from the text, and what still moves them.
std::string untrained_router_warning(const ModelRecipe& model) {
  const MoeRecipe& moe = model.moe;
  std::vector<std::string> losses;
  for (std::size_t i = 0; i < moe.balance.size(); ++i)
    if (moe.balance[i].coefficient > 0) losses.push_back(join_text("model.moe.balance.", i));
  if (moe.router.z_loss_coefficient > 0) losses.emplace_back("model.moe.router.z_loss_coefficient");
  return join_text(
      "model.moe.num_experts_per_tok: 1 with ",
      moe.router.norm_topk_prob ? "model.moe.router.norm_topk_prob: true makes the weight of a token's expert"
                                : "model.moe.router.pool.maximum: 1 makes the weight of a token's expert",
      " a constant, so the language-model loss trains no router. ",
      losses.empty() ? "No other loss trains them either: they stay as they were drawn, but for weight decay."
                     : "The routers' only gradients come from " + join_words(losses) +
                           ", which do not know which expert suits a token.",
      moe.router.norm_topk_prob
          ? " Expected norm_topk_prob: false, where the weight is the expert's probability, or more experts "
            "per token."
          : " Expected a larger pool or more experts per token.");
}

}  // namespace

void validate_recipe(const Recipe& recipe, int ranks) {
  check(ranks >= 1, Fault::request, ranks, " ranks came, expected at least 1");
  const Requirements requirements(recipe.places);
  Recipe copy = recipe;  // visitors may write; this one does not
  requirements.require_rules(SectionReference(copy));
  validate_model(requirements, recipe.model);
  validate_data(requirements, recipe);
  validate_capacity(requirements, recipe);
  validate_layout(requirements, recipe, ranks);
  validate_batches(requirements, recipe, ranks);
  validate_optimizer(requirements, recipe.optimizer, recipe.training.steps);
  validate_checkpoint(requirements, recipe.checkpoint);
  requirements.require(recipe.training.device == "cpu" || recipe.training.precision != "fp64",
                       "training.precision", "fp64 came with training.device: ", recipe.training.device,
                       ", whose kernels compute in fp32; expected fp32 or bf16, or training.device: cpu");
  const bool on_gpu = recipe.training.device != "cpu";
  const ModelRecipe& model = recipe.model;
  requirements.require(!on_gpu || model.head_dim <= 256, "model.head_dim", model.head_dim,
                       " came, a GPU's attention takes at most 256");
  requirements.require(!on_gpu || model.moe.num_experts <= 512, "model.moe.num_experts",
                       model.moe.num_experts, " came, a GPU routes to at most 512");
  requirements.require(!on_gpu || model.moe.num_experts_per_tok <= 32, "model.moe.num_experts_per_tok",
                       model.moe.num_experts_per_tok, " came, a GPU chooses at most 32");
  requirements.require(
      seconds_of_duration(recipe.training.time_limit).has_value(), "training.time_limit", "'",
      recipe.training.time_limit,
      "' came, expected seconds, or MM:SS, HH:MM:SS, D-HH, D-HH:MM or D-HH:MM:SS as in Slurm");
}

std::vector<std::string> warnings(const Recipe& recipe) {
  std::vector<std::string> sentences;
  if (routers_learn_nothing_from_text(recipe.model))
    sentences.push_back(untrained_router_warning(recipe.model));
  if (recipe.optimizer.schedule.warmup_steps > recipe.training.steps)
    sentences.push_back(join_text("optimizer.schedule.warmup_steps: ", recipe.optimizer.schedule.warmup_steps,
                                  " is more than training.steps: ", recipe.training.steps,
                                  "; the learning rate will not reach optimizer.lr."));
  const std::vector<BalanceRecipe>& terms = recipe.model.moe.balance;
  for (std::size_t i = 0; i < terms.size(); ++i)  // the default may just have been left there
    if (terms[i].scope != "global_batch" && terms[i].estimator != BalanceRecipe().estimator)
      sentences.push_back(join_text("model.moe.balance.", i, ".estimator: ", terms[i].estimator,
                                    " belongs to the scope global_batch and does nothing for ",
                                    terms[i].scope, ", whose counts are known in time."));
  if (recipe.model.moe.router.pool.maximum > 0) {
    for (std::size_t i = 0; i < terms.size(); ++i)
      if (terms[i].coefficient > 0 && (terms[i].scope == "sequence" || terms[i].scope == "micro_batch"))
        sentences.push_back(join_text("model.moe.balance.", i, ".scope: ", terms[i].scope,
                                      " balances the experts of few documents, each of which "
                                      "model.moe.router.pool keeps to a few experts; expected a wider scope, "
                                      "data_parallel or global_batch."));
    if (!recipe.data.document_mask)
      sentences.push_back(
          "data.document_mask: false makes each sequence one document, and "
          "model.moe.router.pool gives it one pool.");
  }
  if (recipe.data.validation.empty())
    sentences.push_back("data.validation is empty: this run measures no loss on held-out text.");
  return sentences;
}

}  // namespace conclave
