// Moe: the mixture-of-experts block: route, drop what is beyond capacity where the recipe has one, dispatch,
// compute, combine, and add what the shared experts say, who compute while the tokens travel.
// Parameters under NAME: gate (router), experts, shared_experts.
#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "layers/dispatcher.h"
#include "layers/document_pools.h"
#include "layers/experts.h"
#include "layers/mlp.h"
#include "layers/moe/recipe.h"
#include "layers/router.h"

namespace conclave {

/// How the recipe's routers choose. selection_bias: float64 [experts], of the layer; undefined: none.
RouteRule route_rule(const RouterRecipe& router, const Tensor& selection_bias = {});

/// The router that the recipe names. selection_bias: float64 [experts], of this layer; undefined: none.
std::unique_ptr<Router> make_router(ParameterSet& parameters, const std::string& name,
                                    const ModelRecipe& model, const Tensor& selection_bias = {});
/// What makes the routers of a model; make_router, or something of one's own with the same arguments.
using RouterMaker =
    std::function<std::unique_ptr<Router>(ParameterSet& parameters, const std::string& name,
                                          const ModelRecipe& model, const Tensor& selection_bias)>;

class Moe {
 public:
  /// `router`: make_router()'s, or one of one's own.
  Moe(ParameterSet& parameters, const std::string& name, const ModelRecipe& model, const InitialRange& range,
      const Parallelism& parallelism, std::unique_ptr<Router> router);

  struct Result {
    Variable y;                   // as x
    RouterStatistics statistics;  // of this rank's tokens
  };
  /// x [rows of the residual stream, hidden]; input: the whole micro-batch
  Result forward(Tape& tape, const Variable& x, const ModelInput& input) const;

 private:
  Parallelism parallelism_;
  double capacity_factor_;
  std::optional<DocumentPools> pools_;
  std::unique_ptr<Router> router_;
  std::unique_ptr<Dispatcher> dispatcher_;
  Experts experts_;
  std::optional<Mlp> shared_experts_;  // all shared experts as one MLP, which is the same sum
};

}  // namespace conclave
