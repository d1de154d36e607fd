#include "launch/train/recipe_rules.h"

#include <utility>

#include "framework/base/error.h"
#include "framework/recipe/duration.h"
#include "framework/recipe/requirements.h"
#include "launch/train/recipe_text.h"

namespace conclave {
namespace {

void require_vocabulary(const Requirements& r, const Recipe& recipe) {
  r.require(
      recipe.data.tokenizer != "bytes" || recipe.model.vocab_size >= 257, "model.vocab_size",
      recipe.model.vocab_size,
      " token ids came, but data.tokenizer: bytes needs at least 257, 256 bytes and the end of a document");
}

void require_layout(const Requirements& r, const Recipe& recipe) {
  const ParallelRecipe& p = recipe.parallel;
  const ModelRecipe& m = recipe.model;
  const auto divides = [&](const char* key, std::int64_t degree, const char* what, std::int64_t size) {
    r.require(size % degree == 0, key, degree, " does not divide ", what, ": ", size);
  };
  r.require(p.tensor == 1 || !m.qk_norm || m.qk_norm_over == QkNormOver::head, "parallel.tensor", p.tensor,
            " came with model.qk_norm_over: ", m.qk_norm_over,
            ", whose heads would lie on different ranks; expected 1, or qk_norm_over: head");
  divides("parallel.tensor", p.tensor, "model.num_attention_heads", m.num_attention_heads);
  divides("parallel.tensor", p.tensor, "model.num_key_value_heads", m.num_key_value_heads);
  divides("parallel.tensor", p.tensor, "model.vocab_size", m.vocab_size);
  divides("parallel.tensor", p.tensor, "the tokens of a micro-batch",
          recipe.training.micro_batch_size * recipe.data.sequence_length);
  if (count_moe_layers(m) < m.num_hidden_layers)
    divides("parallel.tensor", p.tensor, "model.intermediate_size", m.intermediate_size);
  divides("parallel.expert", p.expert, "model.moe.num_experts", m.moe.num_experts);
  divides("parallel.expert_tensor", p.expert_tensor, "model.moe.moe_intermediate_size",
          m.moe.moe_intermediate_size);
}

void require_batches(const Requirements& r, const Recipe& recipe, std::int64_t ranks) {
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

void require_possible(const Requirements& r, const CheckpointRecipe& checkpoint) {
  for (std::size_t i = 0; i < checkpoint.accept_changes.size(); ++i) {
    const std::string& name = checkpoint.accept_changes[i];
    r.require(recipe_schema().is_key(name), join_path("checkpoint.accept_changes", std::to_string(i)), "'",
              name, "' is no key of a recipe", recipe_schema().suggestion(name));
  }
}

}  // namespace

void validate_recipe(const Recipe& recipe, int ranks) {
  check(ranks >= 1, Fault::request, ranks, " ranks came, expected at least 1");
  const Requirements requirements(recipe.places);
  Recipe copy = recipe;  // visitors may write; this one does not
  requirements.require_rules(SectionReference(copy));
  require_possible(requirements, recipe.model);
  require_possible(requirements, recipe.data);
  require_vocabulary(requirements, recipe);
  require_possible(requirements, recipe.model.moe, recipe.data.sequence_length);
  require_possible(requirements, recipe.parallel, ranks);
  require_layout(requirements, recipe);
  require_batches(requirements, recipe, ranks);
  require_possible(requirements, recipe.optimizer, recipe.training.steps);
  require_possible(requirements, recipe.checkpoint);
  requirements.require(
      recipe.training.device == DeviceKind::cpu || recipe.training.precision != NumberFormat::fp64,
      "training.precision", "fp64 came with training.device: ", recipe.training.device,
      ", whose kernels compute in fp32; expected fp32 or bf16, or training.device: cpu");
  const bool on_gpu = recipe.training.device != DeviceKind::cpu;
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
  if (std::string sentence = untrained_router_warning(recipe.model); !sentence.empty())
    sentences.push_back(std::move(sentence));
  if (recipe.optimizer.schedule.warmup_steps > recipe.training.steps)
    sentences.push_back(join_text("optimizer.schedule.warmup_steps: ", recipe.optimizer.schedule.warmup_steps,
                                  " is more than training.steps: ", recipe.training.steps,
                                  "; the learning rate will not reach optimizer.lr."));
  for (std::string& sentence : balance_warnings(recipe.model.moe)) sentences.push_back(std::move(sentence));
  if (recipe.model.moe.router.pool.maximum > 0 && !recipe.data.document_mask)
    sentences.push_back(
        "data.document_mask: false makes each sequence one document, and "
        "model.moe.router.pool gives it one pool.");
  if (recipe.data.validation.empty())
    sentences.push_back("data.validation is empty: this run measures no loss on held-out text.");
  return sentences;
}

}  // namespace conclave
