// The losses of held-out text every evaluation.interval steps and after the last one.
#include <chrono>
#include <cmath>
#include <optional>

#include "framework/base/text.h"
#include "launch/train/run/observer.h"
#include "launch/train/stop_signals.h"
#include "parallel/agreement.h"

namespace conclave {
namespace {

class Evaluations : public RunObserver {
 public:
  explicit Evaluations(const RunView& run) : run_(run) {}

  /// The evaluation of a step comes after the step's save, so a run that goes on from there may lack it.
  Wish begin() override {
    const std::int64_t step = run_.trainer.steps_done();
    const bool is_missing =
        is_evaluated(step) && run_.directory != nullptr && run_.directory->lacks_evaluation();
    if (!is_true_on_any(run_.world, is_missing) || evaluate(step)) return Wish::nothing;
    refuse_a_limit_without_steps();
    return Wish::stop;
  }

  Wish after_step(const FinishedStep& step) override {
    if (step.ends_early || !is_evaluated(step.result.step)) return Wish::nothing;
    return evaluate(step.result.step) ? Wish::nothing : Wish::stop;
  }

  double seconds_after(std::int64_t step) const override { return is_evaluated(step) ? 1.5 * seconds_ : 0; }

  std::string summary() const override {
    return std::isnan(final_loss_) ? "" : "mean validation loss " + fixed(final_loss_, 4) + " nats";
  }

 private:
  bool is_evaluated(std::int64_t step) const {
    return step > 0 &&
           (step == run_.recipe.training.steps || is_every(run_.recipe.evaluation.interval, step));
  }

  /// During an evaluation, on all ranks together: says whether one of them was asked to stop. The save that
  /// is under way goes on meanwhile.
  bool stops_now() {
    run_.time_limit.stop_before(2 * run_.saves.seconds());
    std::vector<double> sums = run_.saves.checkpointing().votes();
    sums.push_back(stop_was_requested() ? 1.0 : 0.0);
    const Tensor reduced = Tensor::from(sums, {static_cast<std::int64_t>(sums.size())});
    run_.world.all_reduce(reduced, ReduceOp::sum, Purpose::agreement);
    sums = reduced.to_host<double>();
    const bool stops = sums.back() > 0;
    sums.pop_back();
    run_.saves.checkpointing().after_step(sums);
    return stops;
  }

  /// False when it was broken off, as the run is to stop; then nothing of it is recorded.
  bool evaluate(std::int64_t step) {
    const auto begin = std::chrono::steady_clock::now();
    run_.world.note(Activity::evaluating, step);
    const Recipe& recipe = run_.recipe;
    const std::optional<std::vector<DomainResult>> results =
        evaluate_unless([this] { return stops_now(); }, run_.trainer.model().transformer, *run_.validation,
                        {.most_sequences = recipe.evaluation.batches * recipe.training.global_batch_size,
                         .micro_batch_size = recipe.training.micro_batch_size,
                         .experts = recipe.model.moe.num_experts},
                        run_.mesh);
    if (!results) {
      run_.logger.info("Validation after step ", step,
                       " is broken off, as the run is to stop; its next start begins with it.");
      return false;
    }
    tell(step, *results);
    if (run_.directory != nullptr) run_.directory->write_evaluation(step, *results);
    const double mean = mean_over_domains(*results);
    if (step >= recipe.training.steps) final_loss_ = mean;
    seconds_ = seconds_since(begin);
    if (std::isfinite(mean)) run_.saves.checkpointing().trust_last_save();
    return true;
  }

  void tell(std::int64_t step, const std::vector<DomainResult>& results) {
    std::string domains;
    for (const DomainResult& result : results)
      if (result.target_tokens > 0)
        domains += join_text(domains.empty() ? "" : ", ", result.domain, " ", fixed(result.lm_loss, 3));
    if (!domains.empty())
      run_.logger.info("Validation after step ", step, ": mean ", fixed(mean_over_domains(results), 4),
                       " nats (", domains, ")");
    if (!run_.is_first_rank()) return;
    for (const std::string& sentence : {domains_without_targets(results), domains_not_finite(results)})
      if (!sentence.empty()) run_.logger.warning("Validation after step ", step, ": ", sentence);
  }

  /// This start did no step, as the evaluation that comes first was broken off. Where the time limit did
  /// that, every later start would end like it: Fault::request on all ranks.
  void refuse_a_limit_without_steps() {
    if (!is_true_on_any(run_.world, run_.time_limit.is_up())) return;
    throw Error(Fault::request,
                join_text("training.time_limit: ", run_.recipe.training.time_limit,
                          " came, but the evaluation after step ", run_.trainer.steps_done(),
                          ", with which this start begins, takes longer than that leaves room for; give more "
                          "time, or make evaluations shorter with evaluation.batches"),
                Reach::all_ranks);
  }

  RunView run_;
  double final_loss_ = std::nan("");  // of the last step
  double seconds_ = 0;                // of the last evaluation
};

}  // namespace

std::unique_ptr<RunObserver> evaluations(const RunView& run) {
  return run.validation != nullptr ? std::make_unique<Evaluations>(run) : nullptr;
}

}  // namespace conclave
