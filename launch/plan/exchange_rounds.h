// ExchangeRounds says what the other ranks of an expert group send where an exchange goes in rounds. Without
// a bound they do what this rank does. Under parallel.dispatch_rows a receiver's rows are numbered by sender,
// and a round takes the next ones (layers/moe/dispatcher.h). So ranks that hold equal rows send them in
// different rounds.
#pragma once

#include "parallel/counting.h"

namespace conclave {

class ExchangeRounds final : public OtherRanks {
 public:
  explicit ExchangeRounds(std::int64_t most_rows) : most_rows_(most_rows) {}

  /// Ranks tell each other how many rows they send to each: an exchange begins.
  void before_gather(const Communicator& ranks, const Tensor& in) override;
  /// Counts by expert of one round. Forward rounds come in their order and are replayed in the reverse; the
  /// rows of the other ranks fill each up to the bound until all have come.
  bool answer_exchange(const Communicator& ranks, const Tensor& in, const Tensor& out) override;

 private:
  std::int64_t most_rows_;
  std::int64_t rounds_ = 1, round_ = 0;      // of one pass over the exchange
  std::int64_t from_others_ = 0, left_ = 0;  // rows in a pass, and what has not come of them
};

}  // namespace conclave
