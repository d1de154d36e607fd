#include "layers/moe/methods/group_scope.h"

#include <numeric>

#include "layers/moe/balance_report.h"
#include "layers/moe/load_scope.h"

namespace conclave {
namespace {

std::int64_t sequences_of_micro_step(const BatchPlace& place) {
  return place.replicas * place.micro_batch_size;
}

bool lie_within_micro_steps(const BatchPlace& place, std::int64_t group_size) {
  return place.micro_steps == 1 || sequences_of_micro_step(place) % group_size == 0;
}

std::int64_t sets_of_groups(const BatchPlace& place, std::int64_t group_size) {
  const std::int64_t sequences =
      sequences_of_micro_step(place) * (lie_within_micro_steps(place, group_size) ? 1 : place.micro_steps);
  return (sequences + group_size - 1) / group_size;
}

}  // namespace

SequenceGroups::SequenceGroups(const BatchPlace& place, std::int64_t group_size)
    : TokenSets(lie_within_micro_steps(place, group_size), sets_of_groups(place, group_size)),
      place_(place),
      group_size_(group_size) {}

std::int64_t SequenceGroups::set_of(std::int64_t m, std::int64_t b) const {
  const std::int64_t before = within_micro_step() ? 0 : m * place_.replicas;
  return ((before + place_.replica) * place_.micro_batch_size + b) / group_size_;
}

void SequenceGroups::count(std::int64_t m, const std::vector<RouterReading>& layers,
                           std::vector<std::int64_t>& counts) const {
  auto of_layer = counts.begin();
  for (const RouterReading& layer : layers) {
    const std::int64_t experts = layer.experts;
    for (std::int64_t b = 0; b < layer.sequences; ++b)
      for (std::int64_t expert = 0; expert < experts; ++expert)
        of_layer[set_of(m, b) * experts + expert] +=
            layer.counts[static_cast<std::size_t>(b * experts + expert)];
    of_layer += sets() * experts;
  }
}

namespace {

class GroupScope final : public LoadScope {
 public:
  GroupScope(std::int64_t size, const ScopeFacts& facts) : size_(size), model_(facts) {
    check(size >= 1, Fault::request, "model.moe.balance: balance_batch_size ", size,
          " came with the scope group, expected at least 1");
  }

  void want(const StepFacts& step, ExpertCounts::Needs& needs) override {
    check(step.place.micro_batch_size > 0,
          "GroupScope: a step without micro_batch_size came; expected where ", "its micro-batches lie");
    within_micro_batch_ = step.place.micro_batch_size % size_ == 0;
    needs.sequences |= within_micro_batch_;
    if (within_micro_batch_) return;
    index_ = needs.sets.size();
    needs.sets.push_back(std::make_unique<SequenceGroups>(step.place, size_));
  }

  std::vector<double> fractions(const RoutedMicroStep& seen, const std::vector<double>&) override {
    return fractions_by_row(
        within_micro_batch_ ? counts_within(seen.counted) : counts_of_sets(index_, seen, model_),
        model_.experts);
  }

 private:
  /// Sums over each group, [layers, sequences, experts]; micro-batches begin at multiples of its size.
  ExpertCounts::Counts counts_within(const ExpertCounts::Known& counted) const {
    const std::int64_t experts = model_.experts;
    ExpertCounts::Counts counts(counted.by_sequence.size());
    for (std::int64_t row = 0; row < model_.layers * counted.sequences; ++row)
      for (std::int64_t expert = 0; expert < experts; ++expert)
        for (std::int64_t other = row / size_ * size_; other < (row / size_ + 1) * size_; ++other)
          counts[static_cast<std::size_t>(row * experts + expert)] +=
              counted.by_sequence[static_cast<std::size_t>(other * experts + expert)];
    return counts;
  }

  std::int64_t size_;
  ScopeFacts model_;
  bool within_micro_batch_ = false;
  std::size_t index_ = 0;  // in ExpertCounts::Needs::sets
};

}  // namespace

LoadScopeKind group_scope() {
  return {.scope = BalanceScope::group,
          .make = [](const BalanceRecipe& term, const ScopeFacts& facts) -> std::unique_ptr<LoadScope> {
            return std::make_unique<GroupScope>(term.balance_batch_size, facts);
          },
          .period = [](const BalanceRecipe& term, std::int64_t sequences) -> std::int64_t {
            const std::int64_t size = term.balance_batch_size;
            return size > 0 ? size / std::gcd(size, sequences) : 1;
          }};
}

}  // namespace conclave
