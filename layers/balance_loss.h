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
// A scope enters through one function, fractions_of(), which gives f for each packed sequence of the
// micro-batch. The counts of all layers and terms cross the network together: per micro-batch in at most one
// integer all-reduce over all ranks and one over the ranks that share the micro-batch, and only when a term
// needs them.
#pragma once

#include <cstdint>
#include <vector>

#include "framework/autograd/ops/routing.h"
#include "framework/recipe/recipe.h"
#include "parallel/communicator.h"

namespace conclave {

/// What one optimizer step did to the experts, equal on all ranks. Arrays are [layers, experts], row-major.
struct BalanceReport {
  std::vector<std::int64_t> counts;        // assignments in the step
  std::vector<double> mean_probability;    // mean over the step's tokens of p_i
  std::vector<double> layer_balance_loss;  // [layers]; unweighted, of the first active term
  double load_balance_loss = 0;            // its mean over layers
  double global_balance_loss = 0;          // N sum_i f_i mean(p_i) with the whole step's f; mean over layers
  double router_z_loss = 0;                // mean over tokens of logsumexp^2, unweighted; mean over layers
  double estimator_error = 0;              // max over layers and micro-steps of ||f used - f of the step||_1
  double max_load_violation = 0;           // max over layers of max_i count_i / mean count - 1
};

/// Where this rank's micro-batches lie in the step, for the scope `group`: row b of micro-step m has position
/// (m * replicas + replica) * micro_batch_size + b.
struct BatchPlace {
  std::int64_t replica = 0;
  std::int64_t replicas = 1;
  std::int64_t micro_batch_size = 0;  // sequences; 0: unknown, which no other scope minds
  std::int64_t micro_steps = 1;
};

class BalanceLoss {
 public:
  /// `all_tokens`: the ranks whose routers see different tokens of the step. `micro_batch`: those among them
  /// that share a replica's micro-batch (its tensor ranks); null: this rank has all of it.
  BalanceLoss(const MoeRecipe& moe, std::int64_t layers, Communicator& all_tokens,
              Communicator* micro_batch = nullptr);

  /// step_tokens: T, known before the first backward.
  void begin_step(std::int64_t step, std::int64_t step_tokens, const BatchPlace& place = {});

  /// The estimator `exact`, and groups that reach beyond a micro-batch, want a forward-only pass over all
  /// micro-batches first: count() each in order, then finish_counting(), which is collective.
  bool needs_counting_pass() const;
  void count(const std::vector<RouterStatistics>& layers);
  void finish_counting();

  /// The weighted auxiliary objective of one micro-batch, float64 [1]. Collective when a term counts what
  /// other ranks hold. Called once per micro-batch, in order.
  Variable objective(Tape& tape, const std::vector<RouterStatistics>& layers);

  /// Collective: sums of the step over all ranks. Also moves this step's fractions to previous_fractions().
  BalanceReport end_step();

  /// f of the previous step, [layers, experts]; empty before the first. Part of a checkpoint.
  const std::vector<double>& previous_fractions() const { return previous_fractions_; }
  void set_previous_fractions(std::vector<double> fractions);

 private:
  using Counts = std::vector<std::int64_t>;  // [layers, experts] where nothing else is said
  /// What has been counted at the micro-step under way.
  struct MicroCounts {
    std::int64_t sequences = 0;
    Counts by_sequence;    // [layers, sequences, experts]; joined over the ranks that share the micro-batch,
    Counts micro_batch;    // and so is this, where a term asks for it
    Counts data_parallel;  // all ranks, where a term asks for it
  };
  bool active(const BalanceRecipe& term) const;
  template <class Predicate>
  bool any_active(const Predicate& predicate) const;
  bool counts_each_micro_step() const;
  /// Whether the groups of this term lie inside micro-batches.
  bool is_local_group(const BalanceRecipe& term) const;
  bool is_wide_group(const BalanceRecipe& term) const;
  /// Of row b of this rank's micro-step m.
  std::int64_t group_of(const BalanceRecipe& term, std::int64_t m, std::int64_t b) const;
  std::int64_t groups_of(const BalanceRecipe& term) const;
  MicroCounts count_micro_step(const std::vector<RouterStatistics>& layers);
  /// f of a global_batch term at this micro-step: [layers, experts].
  std::vector<double> estimate(const BalanceRecipe& term) const;
  /// Counts of the group that each sequence of the micro-batch is in: [layers, sequences, experts].
  Counts counts_of_groups(std::size_t term, const MicroCounts& counted) const;
  /// f for each sequence of the micro-batch: [layers, sequences, experts].
  std::vector<double> fractions_of(std::size_t term, const MicroCounts& counted) const;

  MoeRecipe moe_;
  std::int64_t layers_, experts_;
  Communicator& all_tokens_;
  Communicator* micro_batch_;
  std::vector<double> previous_fractions_;

  // Of the step under way.
  std::int64_t step_ = 0, step_tokens_ = 0;
  BatchPlace place_;
  std::int64_t micro_steps_counted_ = 0, micro_steps_done_ = 0;
  Counts seen_;                            // all ranks, micro-steps so far; if counts_each_micro_step()
  Counts exact_;                           // all ranks, the whole step; from the counting pass
  std::vector<Counts> group_counts_;       // of each term, if wide: [layers, groups, experts]; likewise
  Counts own_;                             // this rank, micro-steps so far
  std::vector<double> probability_sums_;   // this rank: [layers, experts]
  std::vector<double> term_loss_, z_sum_;  // this rank: [layers]
  std::vector<std::vector<double>> used_;  // f of the first global term at each micro-step
};

}  // namespace conclave
