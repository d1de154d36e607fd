#include "layers/moe/methods/shuffle_scope.h"

#include "layers/moe/balance_report.h"
#include "layers/moe/load_scope.h"

namespace conclave {

TokenSamples::TokenSamples(const BatchPlace& place, const RandomKey& key)
    : TokenSets(place.micro_steps == 1, place.micro_steps * place.replicas),
      place_(place),
      drawn_(static_cast<std::size_t>(place.micro_steps)) {
  const std::int64_t size = place.micro_batch_size * place.sequence_length, step_size = size * sets();
  for (std::int64_t sample = 0; sample < sets(); ++sample) {
    const RandomKey order = key.with(static_cast<std::uint64_t>(sample));
    for (std::int64_t draw = 0; draw < size; ++draw) {
      const auto token = static_cast<std::int64_t>(
          order.permute(static_cast<std::uint64_t>(draw), static_cast<std::uint64_t>(step_size)));
      const std::int64_t micro_batch = token / size;  // m * replicas + replica
      if (micro_batch % place.replicas == place.replica)
        drawn_[static_cast<std::size_t>(micro_batch / place.replicas)].push_back({token % size, sample});
    }
  }
}

std::int64_t TokenSamples::set_of(std::int64_t m, std::int64_t) const {
  return m * place_.replicas + place_.replica;
}

void TokenSamples::count(std::int64_t m, const std::vector<RouterReading>& layers,
                         std::vector<std::int64_t>& counts) const {
  auto of_layer = counts.begin();
  for (const RouterReading& layer : layers) {
    const std::int64_t experts = layer.experts, top_k = layer.top_k;
    const std::int64_t first = layer.first_token, end = first + layer.tokens;
    for (const Drawn& drawn : drawn_[static_cast<std::size_t>(m)]) {
      if (drawn.token < first || drawn.token >= end) continue;
      for (std::int64_t k = 0; k < top_k; ++k) {
        const std::int32_t expert = layer.chosen[static_cast<std::size_t>((drawn.token - first) * top_k + k)];
        if (expert >= 0) ++of_layer[drawn.sample * experts + expert];
      }
    }
    of_layer += sets() * experts;
  }
}

namespace {

class ShuffleScope final : public LoadScope {
 public:
  explicit ShuffleScope(const ScopeFacts& facts) : model_(facts) {}

  void want(const StepFacts& step, ExpertCounts::Needs& needs) override {
    check(step.place.micro_batch_size > 0,
          "ShuffleScope: a step without micro_batch_size came; expected where ", "its micro-batches lie");
    index_ = needs.sets.size();
    needs.sets.push_back(std::make_unique<TokenSamples>(
        step.place,
        RandomKey(model_.seed).with("balance shuffle").with(static_cast<std::uint64_t>(step.step))));
  }
  std::vector<double> fractions(const RoutedMicroStep& seen, const std::vector<double>&) override {
    return fractions_by_row(counts_of_sets(index_, seen, model_), model_.experts);
  }

 private:
  ScopeFacts model_;
  std::size_t index_ = 0;  // in ExpertCounts::Needs::sets
};

}  // namespace

LoadScopeKind shuffle_scope() {
  return {.scope = BalanceScope::shuffle,
          .make = [](const BalanceRecipe&, const ScopeFacts& facts) -> std::unique_ptr<LoadScope> {
            return std::make_unique<ShuffleScope>(facts);
          }};
}

}  // namespace conclave
