// Changes between recipes: every key is seen, lists too, and the keys that are refused at a resume are keys.
#include "launch/train/recipe_text.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "launch/train/recipe_rules.h"
#include "tests/launch/example.h"

namespace conclave {
namespace {

TEST(RecipeChanges, NameEachKeyWithOldAndNewValue) {
  Recipe before, after;
  before.data.train = {{"a", "x", 1}, {"b", "y", 2}};
  after = before;
  EXPECT_TRUE(changes_between(before, after).empty());
  after.training.global_batch_size = 64;
  after.model.rope_theta = 5e5;
  after.model.moe.balance.clear();
  after.data.train = {{"a", "x", 3}};
  after.optimizer.groups = {{.pattern = "*", .frozen = true}};
  std::vector<std::string> texts;
  for (const KeyChange& change : changes_between(before, after))
    texts.push_back(change.key + ": " + change_text(change));
  EXPECT_EQ(texts[0], "model.rope_theta: 10000 -> 500000");
  for (const char* text : {"data.train.0.weight: 1 -> 3", "training.global_batch_size: 32 -> 64",
                           "optimizer.groups.0.frozen: none -> true", "data.train.1.path: b -> none",
                           "model.moe.balance.0.scope: global_batch -> none"})
    EXPECT_EQ(std::count(texts.begin(), texts.end(), text), 1) << text;
  EXPECT_EQ(changes_between(after, before).size(), texts.size());
  after = before;
  after.data.train[0].weight = std::numeric_limits<double>::infinity();
  EXPECT_EQ(change_text(changes_between(before, after).at(0)), "1 -> size");
}

TEST(RecipeChanges, ChangesOfMeaningAreNamedByKeysThatExist) {
  for (const char* key :
       {"model.rope_theta", "model.rms_norm_eps", "model.moe.num_experts_per_tok",
        "model.moe.router.norm_topk_prob", "model.moe.router.kind", "model.moe.router.routed_scaling_factor",
        "model.moe.capacity_factor", "model.moe.router.pool.minimum", "model.moe.router.pool.maximum",
        "model.moe.router.pool.evaluation", "data.tokenizer"})
    EXPECT_TRUE(gives_weights_their_meaning(key)) << key;
  for (const char* key : {"data.sequence_length", "data.document_mask", "training.seed"})
    EXPECT_TRUE(gives_counts_their_meaning(key)) << key;
  // Names, shapes and types are compared by who reads the tensors; these keys can change without changing
  // one.
  EXPECT_EQ(recipe_schema().keys_that_give_meaning_to(Saved::weights),
            (std::vector<std::string>{"model.num_attention_heads",
                                      "model.num_key_value_heads",
                                      "model.head_dim",
                                      "model.rope_theta",
                                      "model.partial_rotary_factor",
                                      "model.rope_scaling.type",
                                      "model.rope_scaling.factor",
                                      "model.rope_scaling.low_freq_factor",
                                      "model.rope_scaling.high_freq_factor",
                                      "model.rope_scaling.original_max_position_embeddings",
                                      "model.no_rope_layers",
                                      "model.rms_norm_eps",
                                      "model.qk_norm_over",
                                      "model.qk_norm_after_rope",
                                      "model.moe.num_experts_per_tok",
                                      "model.moe.capacity_factor",
                                      "model.moe.router.kind",
                                      "model.moe.router.norm_topk_prob",
                                      "model.moe.router.routed_scaling_factor",
                                      "model.moe.router.n_group",
                                      "model.moe.router.topk_group",
                                      "model.moe.router.vocabulary.visible",
                                      "model.moe.router.vocabulary.frequent_share",
                                      "model.moe.router.vocabulary.seed",
                                      "model.moe.router.pool.minimum",
                                      "model.moe.router.pool.maximum",
                                      "model.moe.router.pool.evaluation",
                                      "data.tokenizer"}));
  EXPECT_EQ(recipe_schema().keys_that_give_meaning_to(Saved::counts),
            (std::vector<std::string>{"data.sequence_length", "data.document_mask", "training.seed"}));
  EXPECT_FALSE(gives_weights_their_meaning("optimizer.lr"));
}

TEST(RecipeChanges, AreAcceptedByKeySectionOrList) {
  Recipe recipe;
  EXPECT_FALSE(accepts_change(recipe, "model.rope_theta"));
  recipe.checkpoint.accept_changes = {"model.rope", "data.train", "training.seed"};
  EXPECT_FALSE(accepts_change(recipe, "model.rope_theta"));
  EXPECT_TRUE(accepts_change(recipe, "data.train.3.path"));
  EXPECT_TRUE(accepts_change(recipe, "training.seed"));
}

TEST(RecipeChanges, AcceptedOnesMustBeKeys) {
  Recipe recipe = example_recipe();
  for (const char* name : {"model", "model.rope_theta", "data.train", "data.train.1.path", "training.seed"}) {
    recipe.checkpoint.accept_changes = {name};
    EXPECT_NO_THROW(validate_recipe(recipe, 1)) << name;
  }
  for (const char* name : {"model.rope_thet", "rope_theta", "", "model."}) {
    recipe.checkpoint.accept_changes = {"model", name};
    try {
      validate_recipe(recipe, 1);
      ADD_FAILURE() << name;
    } catch (const Error& error) {
      EXPECT_EQ(error.fault(), Fault::request);
      EXPECT_NE(std::string(error.what()).find("checkpoint.accept_changes.1: '"), std::string::npos)
          << error.what();
    }
  }
}

}  // namespace
}  // namespace conclave
