// Counts of parameters and arithmetic against numbers worked out by hand.
#include "launch/train/model_size.h"

#include <gtest/gtest.h>

namespace conclave {
namespace {

/// Small primes, so that a forgotten factor changes the sum.
ModelRecipe small_model() {
  ModelRecipe model;
  model.vocab_size = 17;
  model.hidden_size = 5;
  model.intermediate_size = 7;
  model.num_hidden_layers = 3;
  model.num_attention_heads = 6;
  model.num_key_value_heads = 2;
  model.head_dim = 4;
  model.moe.num_experts = 11;
  model.moe.num_experts_per_tok = 2;
  model.moe.moe_intermediate_size = 13;
  model.moe.num_shared_experts = 1;
  model.moe.first_k_dense_replace = 1;
  return model;
}

TEST(ParameterCount, IsTheSumOfEveryMatrix) {
  const ParameterCount count = count_parameters(small_model());
  EXPECT_EQ(count.embedding, 17 * 5);
  EXPECT_EQ(count.attention, 3 * (5 * 24 + 5 * 8 + 5 * 8 + 24 * 5));
  EXPECT_EQ(count.router, 2 * 11 * 5);
  EXPECT_EQ(count.experts, 2 * 11 * (13 * 5 + 13 * 5 + 5 * 13));
  EXPECT_EQ(count.shared_experts, 2 * 3 * 13 * 5);
  EXPECT_EQ(count.dense_mlp, 3 * 7 * 5);
  EXPECT_EQ(count.norms, 3 * (5 + 5 + 4 + 4) + 5);
  EXPECT_EQ(count.lm_head, 17 * 5);
  EXPECT_EQ(count.total(), 85 + 960 + 110 + 4290 + 390 + 105 + 59 + 85);
  EXPECT_EQ(count_active_parameters(small_model()).experts, 2 * 2 * 195);
}

TEST(ParameterCount, KnowsTiedEmbeddingsAndMissingNorms) {
  ModelRecipe model = small_model();
  model.tie_word_embeddings = true;
  model.qk_norm = false;
  EXPECT_EQ(count_parameters(model).lm_head, 0);
  EXPECT_EQ(count_parameters(model).norms, 3 * 10 + 5);
}

TEST(ParameterCount, KnowsNormsOverAllHeads) {
  ModelRecipe model = small_model();
  model.qk_norm_over = QkNormOver::all_heads;
  EXPECT_EQ(count_parameters(model).norms, 3 * (5 + 5 + 24 + 8) + 5);
}

TEST(TrainingFlops, CountProductsSixTimesAndCausalAttentionOnce) {
  // Active products: 960 + 110 + 780 + 390 + 105 + the LM head's 85. Attention: 3 layers, sequence 10,
  // width 24.
  const double expected = 6.0 * (960 + 110 + 780 + 390 + 105 + 85) + 3.0 * 3 * (2 * 2 * 5 * 24);
  EXPECT_DOUBLE_EQ(training_flops_per_token(small_model(), 10), expected);
  ModelRecipe tied = small_model();
  tied.tie_word_embeddings = true;
  EXPECT_DOUBLE_EQ(training_flops_per_token(tied, 10), expected) << "a tied LM head computes as much";
}

}  // namespace
}  // namespace conclave
