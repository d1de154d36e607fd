// What one optimizer step did to the experts: the sums that ranks gather while the step runs, and the report
// that comes of them at its end.
#pragma once

#include <cstdint>
#include <vector>

#include "layers/expert_counts.h"

namespace conclave {

/// What one optimizer step did to the experts, equal on all ranks. Arrays are [layers, experts], row-major.
struct BalanceReport {
  std::vector<std::int64_t> counts;        // assignments in the step
  std::vector<double> mean_probability;    // mean over the step's tokens of p_i
  std::vector<double> layer_balance_loss;  // [layers]; unweighted, of the first active term, over
                                           // groups of experts where that one is
  double load_balance_loss = 0;            // its mean over layers
  double global_balance_loss = 0;          // N sum_i f_i mean(p_i) with the whole step's f; mean over layers
  double router_z_loss = 0;                // mean over tokens of logsumexp^2, unweighted; mean over layers
  double estimator_error = 0;              // max over layers and micro-steps of ||f used - f of the step||_1
  double max_load_violation = 0;           // max over layers of max_i count_i / mean count - 1
  std::vector<std::int64_t> dropped;  // [layers]; assignments beyond capacity, counted above; empty: no bound
  /// The mean over the sets of the selection bias' scope of sign(mean load - load); empty without a bias.
  std::vector<double> load_signs;
};

/// Sums over a rank's micro-batches, then over all ranks. What nobody asks for stays empty and does not
/// travel.
struct StepSums {
  std::vector<double> probabilities;  // [layers, experts]; p_i over tokens
  std::vector<double> term_loss;      // [layers]; unweighted, of the first active term
  std::vector<double> z;              // [layers]; logsumexp^2 over tokens
  std::vector<double> dropped;        // [layers]; whole numbers, exact below 2^53
  std::vector<double> load_signs;     // [layers, experts]; of the sets of a selection bias
  std::vector<double> sign_sets;      // [1]; how many sets those are

  /// In one float64 all-reduce. Collective.
  void sum_over(Communicator& ranks);
};

/// What the report needs beside the sums.
struct StepFacts {
  std::int64_t layers = 0, experts = 0, tokens = 0;
  bool any_term = false;                  // else the loss of the whole step's counts stands for a term's
  std::vector<std::vector<double>> used;  // f of the first global term at each micro-step, [layers, experts]
};

/// counts [layers, experts]: the assignments of the whole step. Leaves load_signs to the caller.
BalanceReport report_of(const ExpertCounts::Counts& counts, const StepSums& sums, const StepFacts& facts);

/// counts [..., experts] divided by the sum of their row; rows without assignments stay 0.
std::vector<double> fractions_by_row(const ExpertCounts::Counts& counts, std::int64_t experts);

}  // namespace conclave
