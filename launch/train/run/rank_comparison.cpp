// Every training.replica_check_interval steps: parameters that must be equal are compared, and ranks that are
// slower than the others are named.
#include <set>
#include <utility>

#include "launch/train/run/observer.h"
#include "parallel/replica_check.h"

namespace conclave {
namespace {

class RankComparison : public RunObserver {
 public:
  explicit RankComparison(const RunView& run) : run_(run) {}

  Wish after_step(const FinishedStep& step) override {
    if (!is_every(run_.recipe.training.replica_check_interval, step.result.step)) return Wish::nothing;
    run_.world.note(Activity::checking, step.result.step);
    check_replicas(run_.trainer.model().parameters, run_.mesh);
    std::set<int> named;
    for (const SlowRank& slow : run_.trainer.clock().slow_ranks()) {
      // Again only after it was as fast as the others in between.
      if (run_.is_first_rank() && !slow_ranks_.contains(slow.rank))
        run_.logger.warning("After step ", step.result.step, ": ", slow.sentence);
      named.insert(slow.rank);
    }
    slow_ranks_ = std::move(named);
    return Wish::nothing;
  }

 private:
  RunView run_;
  std::set<int> slow_ranks_;  // at the last comparison
};

}  // namespace

std::unique_ptr<RunObserver> rank_comparison(const RunView& run) {
  const bool is_wanted = run.recipe.training.replica_check_interval > 0 && run.world.size() > 1;
  return is_wanted ? std::make_unique<RankComparison>(run) : nullptr;
}

}  // namespace conclave
