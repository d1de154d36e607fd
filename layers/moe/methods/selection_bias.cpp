#include "layers/moe/methods/selection_bias.h"

#include <algorithm>
#include <numeric>

#include "layers/moe/methods.h"

namespace conclave {

std::int64_t add_load_signs(const std::vector<std::int64_t>& counts, std::int64_t layers,
                            std::int64_t experts, std::vector<double>& sums) {
  const std::int64_t sets =
      layers * experts > 0 ? static_cast<std::int64_t>(counts.size()) / (layers * experts) : 0;
  std::int64_t spoke = 0;
  for (std::int64_t row = 0; row < layers * sets; ++row) {
    const std::int64_t* load = counts.data() + row * experts;
    const std::int64_t all = std::accumulate(load, load + experts, std::int64_t{0});
    if (all == 0) continue;
    if (row < sets) ++spoke;
    // Exact in integers: the mean load is all / experts.
    for (std::int64_t i = 0; i < experts; ++i)
      sums[static_cast<std::size_t>(row / sets * experts + i)] +=
          (all > load[i] * experts) - (all < load[i] * experts);
  }
  return spoke;
}

void move_selection_bias(const Tensor& bias, const std::vector<double>& load_signs,
                         const SelectionBiasRecipe& recipe) {
  check(bias.elements() == static_cast<std::int64_t>(load_signs.size()),
        "move_selection_bias: ", load_signs.size(), " signs came for ", bias.elements(), " biases");
  kernels_of(bias).add_scaled(Tensor::from(load_signs, bias.shape(), bias.device()), recipe.rate, bias);
  if (!recipe.recentre) return;
  std::vector<double> values = bias.to_host<double>();
  const auto experts = static_cast<std::ptrdiff_t>(bias.dim(1));
  for (auto layer = values.begin(); layer != values.end(); layer += experts) {
    const double mean = std::accumulate(layer, layer + experts, 0.0) / static_cast<double>(experts);
    for (auto value = layer; value != layer + experts; ++value) *value -= mean;
  }
  bias.copy_from(Tensor::from(values, bias.shape()));
}

namespace {

/// The scope of the same word.
BalanceScope scope_of(BiasScope scope) {
  return value_of_word<BalanceScope>(word_of(scope)).value();
}

/// Moves the bias by the load of its scope.
class BiasMover final : public Objective {
 public:
  explicit BiasMover(const ObjectiveFacts& facts)
      : recipe_(facts.moe.router.bias),
        model_(facts.model),
        bias_(facts.states.of(selection_bias_name)),
        kind_(load_scope(scope_of(recipe_.scope))),
        scope_(kind_.make({.scope = kind_.scope}, model_)) {
    check(kind_.is_whole_step || kind_.loads != nullptr, Fault::request, "model.moe.router.bias: scope \"",
          recipe_.scope, "\" came, expected one whose load a bias can follow");
  }

  void want(const StepFacts& step, ExpertCounts::Needs& needs, StepSums& sums) override {
    active_ = recipe_.last_step < 0 || step.step <= recipe_.last_step;
    if (!is_narrow()) return;
    scope_->want(step, needs);
    sums.add("load_signs", model_.layers * model_.experts);
    sums.add("sign_sets", 1);
  }
  Variable of_micro_step(Tape&, const RoutedMicroStep& seen, Factors&, StepSums& sums) override {
    if (!is_narrow()) return {};
    const LoadSets loads = kind_.loads(seen);
    // Ranks that know the same counts let one of them speak.
    if (loads.speaks)
      sums["sign_sets"][0] += static_cast<double>(
          add_load_signs(loads.counts, model_.layers, model_.experts, sums["load_signs"]));
    return {};
  }
  void report(const StepOutcome& step, const StepSums& sums, BalanceReport&) override {
    if (is_narrow()) {
      signs_ = sums["load_signs"];
      for (double& sign : signs_) sign /= std::max(sums["sign_sets"][0], 1.0);
    } else {
      signs_.assign(step.counts.size(), 0);
      add_load_signs(step.counts, model_.layers, model_.experts, signs_);
    }
  }
  void keep() override {
    if (!active_) return;
    check(bias_.defined(), "SelectionBias: no ", selection_bias_name, " came; expected the states of the ",
          "model's routers");
    move_selection_bias(bias_, signs_, recipe_);
  }

 private:
  /// True where it follows sets that are narrower than the step.
  bool is_narrow() const { return active_ && !kind_.is_whole_step; }

  SelectionBiasRecipe recipe_;
  ScopeFacts model_;
  Tensor bias_;  // the routers' own
  const LoadScopeKind& kind_;
  std::unique_ptr<LoadScope> scope_;
  bool active_ = false;        // in the step under way
  std::vector<double> signs_;  // of the step that was reported; the mean over its sets
};

}  // namespace

Method selection_bias() {
  return {.choice =
              [](const MoeRecipe& moe, const MethodStates& states, RouteRule& rule) {
                if (moe.router.bias.rate > 0) rule.selection_bias = states.of(selection_bias_name);
              },
          .objective = [](const ObjectiveFacts& facts) -> std::unique_ptr<Objective> {
            if (facts.moe.router.bias.rate == 0) return nullptr;
            return std::make_unique<BiasMover>(facts);
          },
          .state = selection_bias_name,
          .keeps_state = [](const MoeRecipe& moe) { return moe.router.bias.rate > 0; },
          .state_is_lost =
              [](const std::string& checkpoint) {
                return "model.moe.router.bias.rate: 0 came, but the routers of " + checkpoint +
                       " choose with a selection bias, which would be lost. Leave the rate as it was; "
                       "model.moe.router.bias.last_step: 0 keeps the bias where it is.";
              },
          .act_always = [](MoeRecipe& moe) { moe.router.bias.last_step = -1; }};
}

}  // namespace conclave
