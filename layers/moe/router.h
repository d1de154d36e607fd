// Router: decides which experts a token goes to and with what weight. It knows no dispatch and no loss; it
// leaves statistics behind. A new router is mostly new Scores (layers/moe/routing_steps.h), which this one
// composes with what the recipe's methods bring; docs/add_a_router.md walks through one.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "layers/linear.h"
#include "layers/moe/method_state.h"
#include "layers/moe/recipe.h"
#include "layers/moe/routing_steps.h"
#include "layers/parallelism.h"

namespace conclave {

class Router {
 public:
  virtual ~Router() = default;
  /// x [tokens, hidden] -> experts and weights [tokens, slots], statistics by sequence. Collective over
  /// input.micro_batch where a method joins what lies across its ranks.
  virtual Routing route(Tape& tape, const RouterInput& input) const = 0;
};

/// A linear score for each expert (Shazeer et al., arXiv 1701.06538, without noise). Parameter: NAME.weight
/// [experts, hidden].
class LinearScores final : public Scores {
 public:
  LinearScores(ParameterSet& parameters, const std::string& name, const ModelRecipe& model)
      : gate_(parameters, name, model.hidden_size, model.moe.num_experts, model.initializer_range,
              Parallelism::per_rank(), Precision::full) {}
  Variable of(Tape& tape, const RouterInput& input) const override { return gate_.forward(tape, input.x); }

 private:
  Linear gate_;
};

/// The top_k best experts, by a rule that one kernel follows together with the weights.
class TopK final : public Selection {
 public:
  TopK(std::int64_t top_k, const RouteRule& rule) : top_k_(top_k), rule_(rule) {}
  std::int64_t slots() const override { return top_k_; }
  Tensor choose(const Tensor& logits, const RouterInput& input) const override;
  Routing route(Tape& tape, const Variable& logits, const RouterInput& input,
                const RouteRule& rule) const override;

 private:
  std::int64_t top_k_;
  RouteRule rule_;
};

class ComposedRouter final : public Router {
 public:
  struct Steps {
    std::unique_ptr<Scores> scores;
    std::vector<std::unique_ptr<Mask>> masks;
    std::unique_ptr<Selection> selection;
    RouteRule weights;  // softmax scores (above) or sigmoid scores (DeepSeek-V3, arXiv 2412.19437)
  };
  explicit ComposedRouter(Steps steps) : steps_(std::move(steps)) {}
  Routing route(Tape& tape, const RouterInput& input) const override;

 private:
  Steps steps_;
};

/// How a recipe's routers choose and weigh. `states`: of the layer.
RouteRule route_rule(const MoeRecipe& moe, const MethodStates& states = {});
/// Scores of one's own with masks, selection and weights as the recipe says. `name`: of the layer's
/// feed-forward part, "model.layers.0.mlp", which tells the draws of layers apart; `states`: of the layer.
std::unique_ptr<Router> compose_router(std::unique_ptr<Scores> scores, const std::string& name,
                                       const MoeRecipe& moe, const MethodStates& states = {});
/// The router that the recipe names; its parameters are under NAME.gate.
std::unique_ptr<Router> make_router(ParameterSet& parameters, const std::string& name,
                                    const ModelRecipe& model, const MethodStates& states = {});
/// Makes the routers of a model: make_router, or a function of one's own with the same arguments.
using RouterMaker = std::function<std::unique_ptr<Router>(
    ParameterSet& parameters, const std::string& name, const ModelRecipe& model, const MethodStates& states)>;

}  // namespace conclave
