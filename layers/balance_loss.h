// BalanceLoss: turns the router statistics of all layers into the load-balancing and router z losses at the
// end of each forward pass.
//
//   L = (N / T) sum over tokens t of sum_i f_i^S(t) p_i(t),   dL/dp_i(t) = (N / T) f_i^S(t)
//
// N experts, k of them per token, T real tokens of the whole optimizer step over all ranks and micro-batches,
// S(t) the scope that t is balanced with, f_i^S = c_i^S / (k T_S) from integer counts that carry no gradient
// ("Demons in the Detail", arXiv 2501.11873). Everything is divided here by totals of the step and only
// summed afterwards, over micro-batches and ranks alike. L is 1 under uniform routing in every scope.
//
// A term over D groups of consecutive experts (DeepSeekMoE's device-level loss, arXiv 2401.06066, equations
// 15 to 17) puts the mean of f over a group in the place of its members' f:
//
//   L = (D / T) sum over t of sum over groups g of F_g P_g(t),   F_g, P_g(t): sums of f_i and p_i(t) in g
//
// A scope enters through one function, fractions_of(), which gives f for each packed sequence of the
// micro-batch. What it counts, and when counts cross the network, is in expert_counts.h.
#pragma once

#include <cstdint>
#include <vector>

#include "layers/balance_report.h"
#include "layers/expert_counts.h"
#include "layers/moe/recipe.h"

namespace conclave {

class BalanceLoss {
 public:
  /// `all_tokens`: the ranks whose routers see different tokens of the step. `micro_batch`: those among them
  /// that share a replica's micro-batch (its tensor ranks); null: this rank has all of it. The seed is for
  /// the samples of the scope `shuffle`.
  BalanceLoss(const MoeRecipe& moe, std::int64_t layers, Communicator& all_tokens,
              Communicator* micro_batch = nullptr, std::uint64_t seed = 0);

  /// step_tokens: T, known before the first backward.
  void begin_step(std::int64_t step, std::int64_t step_tokens, const BatchPlace& place = {});

  /// Under gradient accumulation the estimator `exact`, the scope `shuffle`, and groups that reach beyond a
  /// micro-step want a forward-only pass over all micro-batches first: count() each in order, then
  /// finish_counting(), which is collective.
  bool needs_counting_pass() const { return counts_.needs_counting_pass(); }
  void count(const std::vector<RouterStatistics>& layers) {
    counts_.count_ahead(read_routers(layers, counts_.reads_chosen()));
  }
  void finish_counting() { counts_.finish_counting_ahead(); }

  /// Once per micro-batch, in order: what its routers left behind; waits for their device. Collective when a
  /// term counts what other ranks hold, and then does not wait for them: computing may go on while the counts
  /// travel.
  void begin_micro_step(const std::vector<RouterStatistics>& layers);
  /// The weighted auxiliary objective of this micro-batch, float64 [1] on the device of the statistics; where
  /// no layer has experts, 0 on `device`.
  Variable objective(Tape& tape, Device& device = cpu_device());

  /// Collective: sums of the step over all ranks. Also moves this step's fractions to previous_fractions().
  BalanceReport end_step();

  /// f of the previous step, [layers, experts]; empty before the first. Part of a checkpoint.
  const std::vector<double>& previous_fractions() const { return previous_fractions_; }
  void set_previous_fractions(std::vector<double> fractions);

 private:
  using Counts = ExpertCounts::Counts;
  bool active(const BalanceRecipe& term) const;
  bool bias_is_active() const;
  /// Whether the bias follows sets that are narrower than the step.
  bool bias_is_narrow() const;
  /// Whether each group of this term lies inside a micro-batch.
  bool is_local_group(const BalanceRecipe& term) const;
  ExpertCounts::Needs needs_of_step();
  /// f of a global_batch term at this micro-step: [layers, experts].
  std::vector<double> estimate(const BalanceRecipe& term) const;
  /// Counts of the set that each sequence of the micro-batch is balanced with: [layers, sequences, experts].
  Counts counts_of_sets(std::size_t term, const ExpertCounts::MicroStep& counted) const;
  /// f for each sequence of the micro-batch: [layers, sequences, experts].
  std::vector<double> fractions_of(std::size_t term, const ExpertCounts::MicroStep& counted) const;
  void add_signs_of(const ExpertCounts::MicroStep& counted);

  MoeRecipe moe_;
  std::int64_t layers_, experts_;
  Communicator& all_tokens_;
  std::uint64_t seed_;
  ExpertCounts counts_;
  std::vector<double> previous_fractions_;

  // Of the step under way.
  std::int64_t step_ = 0, step_tokens_ = 0, micro_steps_done_ = 0;
  BatchPlace place_;
  std::vector<std::int64_t> sets_of_term_;    // [terms]; where in ExpertCounts::Needs::sets, or -1
  std::vector<RouterStatistics> statistics_;  // [layers]; of the micro-batch under way
  std::vector<RouterReading> readings_;       // [layers]; of the same
  StepSums sums_;                             // this rank's
  std::vector<std::vector<double>> used_;     // f of the first global term at each micro-step
};

}  // namespace conclave
