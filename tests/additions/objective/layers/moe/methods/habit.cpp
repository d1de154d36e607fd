// A toy that stands for any objective with a state: tokens are drawn away from the experts that were chosen
// in the steps before, L = c (N / T) sum over tokens and experts of h_i p_i, where h is a moving mean of f.
#include <limits>

#include "layers/moe/methods.h"

namespace conclave {
namespace {

constexpr double coefficient = 0.1, keep_of_old = 0.5;

class Habit final : public Objective {
 public:
  explicit Habit(const ObjectiveFacts& facts)
      : model_(facts.model), habit_{"state/habit", {model_.layers, model_.experts}, {}} {
    habit_.values = Tensor::zeros(habit_.shape, DType::float64);
  }

  void want(const StepFacts& step, ExpertCounts::Needs&, StepSums& sums) override {
    tokens_ = step.tokens;
    weights_ = habit_.values.to_host<double>();
    sums.add("habit", 1);
  }
  Variable of_micro_step(Tape&, const RoutedMicroStep& seen, Factors& factors, StepSums& sums) override {
    const auto experts = static_cast<std::size_t>(model_.experts);
    const double scale = static_cast<double>(model_.experts) / static_cast<double>(tokens_);
    const auto of_layer = static_cast<std::size_t>(seen.counted.sequences) * experts;
    for (std::size_t layer = 0; layer < seen.readings.size(); ++layer)
      for (std::size_t i = 0; i < of_layer; ++i) {
        const double factor = scale * weights_[layer * experts + i % experts];
        factors.probability_sums[layer * of_layer + i] += coefficient * factor;
        sums["habit"][0] += factor * seen.readings[layer].probability_sums[i];
      }
    factors.any_probability = true;
    return {};
  }
  void report(const StepOutcome& step, const StepSums& sums, BalanceReport& report) override {
    report.others.push_back({"habit_loss", sums["habit"][0], {}});
    fractions_ = step.fractions;
  }
  void report_unknown(BalanceReport& report) const override {
    report.others.push_back({"habit_loss", std::numeric_limits<double>::quiet_NaN(), {}});
  }
  void keep() override {
    for (std::size_t i = 0; i < weights_.size(); ++i)
      weights_[i] = keep_of_old * weights_[i] + (1 - keep_of_old) * fractions_[i];
    habit_.values.copy_from(Tensor::from(weights_, habit_.shape));
  }
  std::vector<MethodState*> states() override { return {&habit_}; }

 private:
  ScopeFacts model_;
  MethodState habit_;
  std::int64_t tokens_ = 0;
  std::vector<double> weights_, fractions_;
};

}  // namespace

Method habit() {
  return {.objective = [](const ObjectiveFacts& facts) -> std::unique_ptr<Objective> {
    return std::make_unique<Habit>(facts);
  }};
}

}  // namespace conclave
