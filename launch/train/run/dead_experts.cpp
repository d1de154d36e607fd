// An expert that no token has chosen for logging.dead_expert_steps steps learns nothing more. It is named
// once.
#include "framework/base/text.h"
#include "launch/train/run/observer.h"
#include "layers/moe/recipe.h"

namespace conclave {
namespace {

class DeadExperts : public RunObserver {
 public:
  explicit DeadExperts(const RunView& run)
      : logger_(run.logger),
        limit_(run.recipe.logging.dead_expert_steps),
        experts_(run.recipe.model.moe.num_experts),
        blocks_(moe_blocks(run.recipe.model)) {}

  Wish after_step(const FinishedStep& step) override {
    if (!step.is_update()) return Wish::nothing;
    const std::vector<std::int64_t>& counts = step.result.balance.counts;
    idle_steps_.resize(counts.size());
    for (std::size_t i = 0; i < idle_steps_.size(); ++i) {
      idle_steps_[i] = counts[i] > 0 ? 0 : idle_steps_[i] + 1;
      if (idle_steps_[i] == limit_)
        logger_.warning("Expert ", static_cast<std::int64_t>(i) % experts_, " of block ",
                        blocks_[i / static_cast<std::size_t>(experts_)], " has had no token for ",
                        counted(limit_, "step"), ".");
    }
    return Wish::nothing;
  }

 private:
  Logger& logger_;
  std::int64_t limit_, experts_;
  std::vector<std::int64_t> blocks_;      // of the layers with experts
  std::vector<std::int64_t> idle_steps_;  // [layers, experts]
};

}  // namespace

/// The counts are the same on all ranks, so one of them is enough.
std::unique_ptr<RunObserver> dead_experts(const RunView& run) {
  const bool is_wanted = run.recipe.logging.dead_expert_steps > 0 && run.is_first_rank();
  return is_wanted ? std::make_unique<DeadExperts>(run) : nullptr;
}

}  // namespace conclave
