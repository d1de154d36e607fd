// A toy that stands for any optimizer with one state that needs whole matrices: with the gradient g,
//   m = b1 m + (1 - b1) g,  w = (1 - lr wd) w - lr m / (rms(m) + eps)
// where rms is the root mean square over the matrix. Computes on the CPU in plain loops.
#include <cmath>

#include "optim/groups.h"
#include "optim/optimizer.h"

namespace conclave {
namespace {

class Normalized : public Optimizer {
 public:
  Normalized(const ParameterSet& parameters, const GradientReducer& reducer, const OptimizerRecipe& recipe)
      : parameters_(parameters), recipe_(recipe), momentum_(new_state(parameters, reducer)) {
    for (const OwnedSpan& span : reducer.owned())
      for (const OwnedMatrix& matrix : matrices_of(span)) matrices_.push_back(matrix);
  }

  std::vector<NamedState> states() const override { return {{"momentum", momentum_}}; }

 private:
  void update(double learning_rate, double gradient_scale) override {
    with_float_type(momentum_.dtype(), [&](auto zero) {
      using T = decltype(zero);
      const double keep = recipe_.betas[0];
      for (const OwnedMatrix& matrix : matrices_) {
        const ParameterSettings settings = settings_of(*matrix.parameter, recipe_);
        const double rate = learning_rate * settings.lr_scale;
        const std::int64_t elements = matrix.shape.elements();
        const T* gradient = parameters_.gradients().data<T>() + matrix.offset;
        T *value = parameters_.values().data<T>() + matrix.offset,
          *momentum = momentum_.data<T>() + matrix.state_offset;
        double squares = 0;
        for (std::int64_t i = 0; i < elements; ++i) {
          momentum[i] = static_cast<T>(keep * momentum[i] + (1 - keep) * gradient_scale * gradient[i]);
          squares += static_cast<double>(momentum[i]) * momentum[i];
        }
        const double length = std::sqrt(squares / static_cast<double>(elements)) + recipe_.eps;
        for (std::int64_t i = 0; i < elements; ++i)
          value[i] =
              static_cast<T>((1 - rate * settings.weight_decay) * value[i] - rate * momentum[i] / length);
      }
    });
  }

  const ParameterSet& parameters_;
  OptimizerRecipe recipe_;
  std::vector<OwnedMatrix> matrices_;
  Tensor momentum_;
};

}  // namespace

OptimizerKind normalized() {
  return {.name = "normalized",
          .owned_unit = [](const Parameter&, const OptimizerRecipe&) { return OwnedUnit::matrix; },
          .make = [](const ParameterSet& parameters, const GradientReducer& reducer,
                     const OptimizerRecipe& recipe) -> std::unique_ptr<Optimizer> {
            return std::make_unique<Normalized>(parameters, reducer, recipe);
          }};
}

}  // namespace conclave
