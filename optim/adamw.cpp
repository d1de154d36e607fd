// AdamW over its kernel (framework/kernels): with the gradient g, the learning rate lr and the update's
// number t,
//   m = b1 m + (1 - b1) g,  v = b2 v + (1 - b2) g^2,
//   w = (1 - lr wd) w - lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)
// (Kingma and Ba, arXiv 1412.6980; decoupled decay: Loshchilov and Hutter, arXiv 1711.05101).
//
// Keys of the section `optimizer`: betas are [b1, b2], how much of each moment an update keeps; eps is added
// to the root of the second moment; weight_decay is wd, which norms and biases do not get.
#include <cmath>

#include "optim/groups.h"
#include "optim/optimizer.h"

namespace conclave {
namespace {

class AdamW : public Optimizer {
 public:
  AdamW(const ParameterSet& parameters, const GradientReducer& reducer, const OptimizerRecipe& recipe)
      : parameters_(parameters),
        recipe_(recipe),
        pieces_(owned_pieces(parameters, reducer, recipe)),
        moment1_(new_state(parameters, reducer)),
        moment2_(new_state(parameters, reducer)) {}

  std::vector<NamedState> states() const override { return {{"moment1", moment1_}, {"moment2", moment2_}}; }

 private:
  void update(double learning_rate, double gradient_scale) override {
    const double beta1 = recipe_.betas[0], beta2 = recipe_.betas[1], t = static_cast<double>(updates());
    kernels_of(moment1_).adamw({.learning_rate = learning_rate,
                                .beta1 = beta1,
                                .beta2 = beta2,
                                .epsilon = recipe_.eps,
                                .correction1 = 1 - std::pow(beta1, t),
                                .correction2 = 1 - std::pow(beta2, t),
                                .gradient_scale = gradient_scale},
                               pieces_, parameters_.gradients(), parameters_.values(), moment1_, moment2_);
  }

  const ParameterSet& parameters_;
  OptimizerRecipe recipe_;
  Pieces pieces_;
  Tensor moment1_, moment2_;
};

}  // namespace

OptimizerKind adamw() {
  return {.name = "adamw",
          .make = [](const ParameterSet& parameters, const GradientReducer& reducer,
                     const OptimizerRecipe& recipe) -> std::unique_ptr<Optimizer> {
            return std::make_unique<AdamW>(parameters, reducer, recipe);
          }};
}

}  // namespace conclave
