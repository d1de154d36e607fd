// z = projection x,  s_i = z . e_i / (|z| |e_i|),  logits s / max(tau, 1e-4)
//
// Weights and the choice follow tau, which is learned. Statistics follow s / tau_0 with the recipe's tau_0,
// so that the balance loss and the z-loss neither feel tau nor move it.
#include "layers/moe/methods/cosine_scores.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <variant>

#include "framework/autograd/ops/elementwise.h"
#include "framework/autograd/ops/linear.h"
#include "framework/autograd/ops/reciprocal.h"
#include "layers/moe/methods.h"
#include "layers/parallelism.h"

namespace conclave {
namespace {

constexpr const char* temperature_name = "router_temperature";
/// Added to the mean square of a row, far below that of any row that has a direction.
constexpr double epsilon = 1e-30;
/// The released code keeps each embedding at this length. Here it is the length at first, and affects only
/// how fast an embedding turns.
constexpr double embedding_length = 1.5;

/// Parameters under NAME: projection [width, hidden], embeddings [experts, width], temperature [1].
class CosineScores final : public Scores {
 public:
  CosineScores(ParameterSet& parameters, const std::string& name, const ModelRecipe& model,
               const CosineScoreRecipe& recipe)
      : recipe_(recipe),
        projection_(parameters.create(name + ".projection", {recipe.width, model.hidden_size},
                                      {Initializer::Kind::normal, model.initializer_range}, Decay::yes,
                                      Parallelism::per_rank(), Precision::full)),
        embeddings_(parameters.create(
            name + ".embeddings", {model.moe.num_experts, recipe.width},
            {Initializer::Kind::normal, embedding_length / std::sqrt(static_cast<double>(recipe.width))},
            Decay::no, Parallelism::per_rank(), Precision::full)),
        temperature_(parameters.create(
            name + ".temperature", {1},
            {.kind = Initializer::Kind::constant, .standard_deviation = 0, .value = recipe.temperature},
            Decay::no, Parallelism::per_rank(), Precision::full)) {}

  Variable of(Tape& tape, const RouterInput& input) const override { return scored(tape, input).logits; }

  Scored scored(Tape& tape, const RouterInput& input) const override {
    const Variable x = to_type(tape, input.x, projection_.value.dtype());
    const Variable token = rms_norm(tape, linear(tape, x, projection_.use(tape)), of_unit_rows(1.0), epsilon);
    const Variable embeddings = embeddings_.use(tape);
    // A norm's gain takes the temperature into the experts' few rows.
    const Variable gain =
        spread_reciprocal(tape, temperature_.use(tape), recipe_.width,
                          1 / std::sqrt(static_cast<double>(recipe_.width)), least_temperature);
    const Variable fixed = of_unit_rows(1 / recipe_.temperature);
    return {linear(tape, token, rms_norm(tape, embeddings, gain, epsilon)),
            linear(tape, token, rms_norm(tape, embeddings, fixed, epsilon)),
            {{temperature_name, temperature_.value}}};
  }

 private:
  /// The gain with which rms_norm makes rows of this length.
  Variable of_unit_rows(double length) const {
    const Tensor& like = embeddings_.value;
    const double gain = length / std::sqrt(static_cast<double>(recipe_.width));
    Variable row;
    with_float_type(like.dtype(), [&](auto zero) {
      using T = decltype(zero);
      const std::vector<T> values(static_cast<std::size_t>(recipe_.width), static_cast<T>(gain));
      row.value = Tensor::from(values, {recipe_.width}, like.device());
    });
    return row;
  }

  CosineScoreRecipe recipe_;
  const Parameter &projection_, &embeddings_, &temperature_;
};

/// Reports the temperatures that a step had.
class TemperatureReport final : public Objective {
 public:
  Variable of_micro_step(Tape&, const RoutedMicroStep& seen, Factors&, StepSums&) override {
    temperatures_.clear();
    for (const RouterReading& reading : seen.readings)
      temperatures_.push_back(std::max(reading.number(temperature_name), least_temperature));
    return {};
  }
  void report(const StepOutcome& step, const StepSums&, BalanceReport& report) override {
    double mean = 0;
    for (const double temperature : temperatures_) mean += temperature / static_cast<double>(step.layers);
    report.others.push_back({temperature_name, mean, temperatures_});
  }
  void report_unknown(BalanceReport& report) const override {
    report.others.push_back({temperature_name, std::numeric_limits<double>::quiet_NaN(), {}});
  }

 private:
  std::vector<double> temperatures_;  // [layers]
};

}  // namespace

Method cosine_scores() {
  return {.scores = [](ParameterSet& parameters, const std::string& name,
                       const ModelRecipe& model) -> std::unique_ptr<Scores> {
            const auto* recipe = std::get_if<CosineScoreRecipe>(&model.moe.router.score);
            if (recipe == nullptr) return nullptr;
            return std::make_unique<CosineScores>(parameters, name, model, *recipe);
          },
          .objective = [](const ObjectiveFacts& facts) -> std::unique_ptr<Objective> {
            if (!std::holds_alternative<CosineScoreRecipe>(facts.moe.router.score)) return nullptr;
            return std::make_unique<TemperatureReport>();
          }};
}

}  // namespace conclave
