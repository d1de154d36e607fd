// The recipes of examples/cluster have the shapes that their models were published with: each count of
// parameters is added up here from the published sizes and equals that of the published weights.
#include <gtest/gtest.h>

#include "launch/train/model_size.h"
#include "launch/train/recipe_text.h"

namespace conclave {
namespace {

struct Published {
  const char* recipe;
  std::int64_t layers, hidden, query_width, key_width, norms_of_queries_and_keys, vocabulary;
  std::int64_t experts, top_k, shared, expert_width, dense_layers, dense_width;
  std::int64_t total, active;  // of the published weights; of them those that a token meets
};

// Configurations and weights: huggingface.co/Qwen/Qwen3-30B-A3B, allenai/OLMoE-1B-7B-0924,
// mistralai/Mixtral-8x7B-v0.1, deepseek-ai/deepseek-moe-16b-base.
constexpr Published models[] = {
    {"qwen3-30b-a3b", 48, 2048, 32 * 128, 4 * 128, 2 * 128, 151936, 128, 8, 0, 768, 0, 0, 30'532'122'624,
     3'353'032'704},
    {"olmoe-7b-a1b", 16, 2048, 16 * 128, 16 * 128, 2 * 2048, 50304, 64, 8, 0, 1024, 0, 0, 6'919'161'856,
     1'282'017'280},
    {"mixtral-8x7b", 32, 4096, 32 * 128, 8 * 128, 0, 32000, 8, 2, 0, 14336, 0, 0, 46'702'792'704,
     12'879'925'248},
    {"deepseekmoe-16b", 28, 2048, 16 * 128, 16 * 128, 0, 102400, 64, 6, 2, 1408, 1, 10944, 16'375'728'128,
     2'828'650'496},
};

std::int64_t parameters(const Published& m, std::int64_t experts) {
  const std::int64_t attention = m.hidden * (2 * m.query_width + 2 * m.key_width);
  const std::int64_t norms = 2 * m.hidden + m.norms_of_queries_and_keys;
  const std::int64_t mixture =
      m.hidden * m.experts + 3 * m.hidden * m.expert_width * (experts + m.shared);  // router and experts
  const std::int64_t dense = 3 * m.hidden * m.dense_width;
  return 2 * m.vocabulary * m.hidden + m.layers * (attention + norms) +
         (m.layers - m.dense_layers) * mixture + m.dense_layers * dense + m.hidden;
}

TEST(Shapes, AreThosePublished) {
  for (const Published& m : models) {
    SCOPED_TRACE(m.recipe);
    const Recipe recipe =
        load_recipe(std::string(CONCLAVE_SOURCE_DIRECTORY "/examples/cluster/") + m.recipe + ".yaml", {});
    EXPECT_EQ(parameters(m, m.experts), m.total);
    EXPECT_EQ(parameters(m, m.top_k), m.active);
    EXPECT_EQ(count_parameters(recipe.model).total(), m.total);
    EXPECT_EQ(count_active_parameters(recipe.model).total(), m.active);
  }
}

}  // namespace
}  // namespace conclave
