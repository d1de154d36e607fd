#include "layers/moe/methods/z_loss.h"

#include <limits>

#include "layers/moe/methods.h"

namespace conclave {
namespace {

class ZLoss final : public Objective {
 public:
  explicit ZLoss(const ObjectiveFacts& facts)
      : layers_(facts.model.layers),
        coefficient_(
            (facts.moe.layer_reduction == LayerReduction::mean ? 1.0 / static_cast<double>(layers_) : 1.0) *
            facts.moe.router.z_loss_coefficient) {}

  void want(const StepFacts& step, ExpertCounts::Needs&, StepSums& sums) override {
    tokens_ = step.tokens;
    sums.add("z", layers_);  // logsumexp^2 over tokens
  }
  Variable of_micro_step(Tape&, const RoutedMicroStep& seen, Factors& factors, StepSums& sums) override {
    factors.z_sum += coefficient_ / static_cast<double>(tokens_);
    for (std::size_t layer = 0; layer < seen.readings.size(); ++layer)
      sums["z"][layer] += seen.readings[layer].z_sum;
    return {};
  }
  void report(const StepOutcome& step, const StepSums& sums, BalanceReport& report) override {
    double mean = 0;  // over tokens and layers, unweighted
    for (const double sum : sums["z"])
      mean += sum / static_cast<double>(step.tokens) / static_cast<double>(step.layers);
    report.others.push_back({"router_z_loss", mean, {}});
  }
  void report_unknown(BalanceReport& report) const override {
    report.others.push_back({"router_z_loss", std::numeric_limits<double>::quiet_NaN(), {}});
  }

 private:
  std::int64_t layers_, tokens_ = 0;
  double coefficient_;
};

}  // namespace

Method z_loss() {
  return {.objective = [](const ObjectiveFacts& facts) -> std::unique_ptr<Objective> {
    return std::make_unique<ZLoss>(facts);
  }};
}

}  // namespace conclave
