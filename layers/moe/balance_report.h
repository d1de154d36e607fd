// The sums about experts that ranks gather while an optimizer step runs, and the report that comes of them at
// its end.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <variant>
#include <vector>

#include "layers/moe/expert_counts.h"

namespace conclave {

/// The report of one optimizer step, equal on all ranks. Arrays are [layers, experts], row-major.
struct BalanceReport {
  /// A number that a method reports, under a name that metrics use.
  struct Other {
    std::string name;
    std::variant<std::int64_t, double> number;
    std::vector<double> layers;  // the same of each layer; may be empty
  };

  std::vector<std::int64_t> counts;        // assignments in the step
  std::vector<double> mean_probability;    // mean over the step's tokens of p_i
  std::vector<double> layer_balance_loss;  // [layers]; unweighted, of the first active term, over
                                           // groups of experts where that one is
  double load_balance_loss = 0;            // its mean over layers
  double global_balance_loss = 0;          // N sum_i f_i mean(p_i) with the whole step's f; mean over layers
  double estimator_error = 0;              // max over layers and micro-steps of ||f used - f of the step||_1
  double max_load_violation = 0;           // max over layers of max_i count_i / mean count - 1
  std::vector<Other> others;

  /// The number of one of the others; NaN where no method reports it.
  double other(const std::string& name) const;
  /// The layers of one of the others; empty where no method reports it.
  std::vector<double> layers_of(const std::string& name) const;
};

/// Sums over a rank's micro-batches, then over all ranks, by name. A sum that nobody asks for does not
/// travel.
class StepSums {
 public:
  /// Zeros under a name of their own.
  void add(const std::string& name, std::int64_t size);
  bool has(const std::string& name) const { return find(name) != nullptr; }
  std::vector<double>& operator[](const std::string& name);
  const std::vector<double>& operator[](const std::string& name) const;

  /// In one float64 all-reduce. Collective.
  void sum_over(Communicator& ranks);

 private:
  struct Sum {
    std::string name;
    std::vector<double> values;
  };
  const Sum* find(const std::string& name) const;

  std::deque<Sum> sums_;  // in the order in which they were added, on all ranks alike
};

/// The whole step, equal on all ranks.
struct StepOutcome {
  std::int64_t layers = 0, experts = 0, tokens = 0;
  const ExpertCounts::Counts& counts;         // [layers, experts]
  const std::vector<double>& fractions;       // their f
  const std::vector<double>& balance_losses;  // [layers]; N sum_i f_i mean(p_i)
};

/// counts [..., experts] divided by the sum of their row; rows without assignments stay 0.
std::vector<double> fractions_by_row(const ExpertCounts::Counts& counts, std::int64_t experts);

}  // namespace conclave
