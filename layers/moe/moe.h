// Moe: the mixture of experts in the MLP's place: route, take back what a method limits, dispatch, compute,
// and combine. Shared experts compute while the tokens travel, and their output is added.
// Parameters under NAME: gate (router), experts, shared_experts.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "layers/mlp.h"
#include "layers/moe/dispatcher.h"
#include "layers/moe/experts.h"
#include "layers/moe/router.h"

namespace conclave {

class Moe final : public FeedForward {
 public:
  /// `router`: make_router()'s, or one of one's own.
  Moe(ParameterSet& parameters, const std::string& name, const ModelRecipe& model, const InitialRange& range,
      const Parallelism& parallelism, std::unique_ptr<Router> router);

  Result forward(Tape& tape, const Variable& x, const ModelInput& input) const override;
  std::int64_t routers() const override { return 1; }
  const char* purpose() const override { return "residual"; }

 private:
  Parallelism parallelism_;
  std::unique_ptr<Router> router_;
  std::vector<std::unique_ptr<Limit>> limits_;
  std::unique_ptr<Dispatcher> dispatcher_;
  Experts experts_;
  std::optional<Mlp> shared_experts_;  // all shared experts as one MLP, which is the same sum
};

/// Makes what stands in the MLP's place of each block that a recipe describes: dense in the first blocks,
/// experts in the others. It owns what the methods of all routers keep.
class FeedForwards {
 public:
  explicit FeedForwards(const ModelRecipe& model, Device& device = cpu_device(),
                        RouterMaker router = make_router);
  /// A FeedForwardMaker.
  std::unique_ptr<FeedForward> operator()(ParameterSet& parameters, const BlockPlace& place) const;

  /// The states that the routers read; whoever moves one of them moves theirs.
  const MethodStates& states() const { return states_; }

 private:
  ModelRecipe model_;
  RouterMaker router_;
  MethodStates states_;
};

}  // namespace conclave
