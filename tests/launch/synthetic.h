// A tiny recipe and batches that are a pure function of (step, position): documents of uneven length, uneven
// padding at the ends of rows, and token frequencies that differ from row to row, so that every micro-batch
// routes differently.
#pragma once

#include "framework/base/random.h"
#include "framework/data/batch.h"
#include "launch/train/recipe.h"

namespace conclave::test {

inline Recipe tiny_recipe() {
  Recipe recipe;
  recipe.name = "tiny";
  recipe.model.vocab_size = 61;
  recipe.model.hidden_size = 32;
  recipe.model.intermediate_size = 48;
  recipe.model.num_hidden_layers = 2;
  recipe.model.num_attention_heads = 4;
  recipe.model.num_key_value_heads = 2;
  recipe.model.head_dim = 8;
  recipe.model.initializer_range = 0.2;  // far from uniform routing
  recipe.model.moe.num_experts = 8;
  recipe.model.moe.num_experts_per_tok = 2;
  recipe.model.moe.moe_intermediate_size = 16;
  recipe.model.moe.num_shared_experts = 1;
  recipe.model.moe.router.z_loss_coefficient = 0.01;
  recipe.model.moe.balance = {
      {.scope = BalanceScope::global_batch, .estimator = Estimator::exact, .coefficient = 0.1}};
  recipe.data.sequence_length = 12;
  recipe.training.global_batch_size = 8;
  recipe.training.micro_batch_size = 1;
  recipe.training.steps = 50;
  recipe.training.precision = NumberFormat::fp64;
  recipe.training.lm_z_loss_coefficient = 0.001;
  recipe.optimizer.lr = 3e-3;
  recipe.optimizer.schedule.warmup_steps = 2;
  return recipe;
}

inline Batch synthetic_batch(const Recipe& recipe, std::int64_t step, std::int64_t first,
                             std::int64_t count) {
  const std::int64_t length = recipe.data.sequence_length, vocabulary = recipe.model.vocab_size;
  Batch batch;
  batch.sequences = count;
  batch.length = length;
  for (std::int64_t position = first; position < first + count; ++position) {
    const RandomKey key =
        RandomKey(99).with(static_cast<std::uint64_t>(step)).with(static_cast<std::uint64_t>(position));
    const std::int64_t real = length - static_cast<std::int64_t>(key.below(0, 5)) * (position % 2);
    const std::int64_t boundary = 2 + static_cast<std::int64_t>(key.below(1, 6));
    const auto token = [&](std::int64_t column) {
      // Each row favours a few tokens of its own.
      const auto wide = static_cast<std::int64_t>(key.below(static_cast<std::uint64_t>(10 + column), 8));
      return static_cast<std::int32_t>((position * 7 + wide * wide) % vocabulary);
    };
    for (std::int64_t column = 0; column < length; ++column) {
      const bool padding = column >= real;
      const bool ends = column + 1 == boundary || column + 1 >= real;
      batch.tokens.push_back(padding ? -1 : token(column));
      batch.targets.push_back(padding || ends ? -1 : token(column + 1));
      batch.document_start.push_back(static_cast<std::int32_t>(padding             ? column
                                                               : column < boundary ? 0
                                                                                   : boundary));
    }
    batch.domain.push_back(0);
  }
  return batch;
}

}  // namespace conclave::test
