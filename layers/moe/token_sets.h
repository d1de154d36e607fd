// TokenSets: sets of tokens of one optimizer step that reach beyond one replica's micro-batch and whose
// expert choices are counted together. They know which tokens belong to which set on every rank alike, and
// count this rank's; they know no communicator.
#pragma once

#include <cstdint>
#include <vector>

#include "layers/moe/router_readings.h"

namespace conclave {

/// Where this rank's micro-batches lie in the step: row b of micro-step m has position
/// (m * replicas + replica) * micro_batch_size + b in it.
struct BatchPlace {
  std::int64_t replica = 0;
  std::int64_t replicas = 1;
  std::int64_t micro_batch_size = 0;  // sequences; 0: unknown, which sets of tokens may mind
  std::int64_t micro_steps = 0;       // of the step; 0: unknown, likewise
  std::int64_t sequence_length = 0;   // tokens, padding included; 0: unknown, likewise
};

class TokenSets {
 public:
  virtual ~TokenSets() = default;

  /// True where all tokens of the sets that a micro-step is balanced with are in this micro-step of some
  /// replica. The sets of each micro-step are then numbered from 0; otherwise those of the step are.
  bool within_micro_step() const { return within_micro_step_; }
  std::int64_t sets() const { return sets_; }
  /// Says if count() looks at RouterReading::chosen.
  virtual ReadChosen reads_chosen() const { return ReadChosen::no; }

  /// The set that row b of this rank's micro-step m is balanced with.
  virtual std::int64_t set_of(std::int64_t m, std::int64_t b) const = 0;
  /// Adds the choices of this rank's micro-step m to counts [layers, sets, experts].
  virtual void count(std::int64_t m, const std::vector<RouterReading>& layers,
                     std::vector<std::int64_t>& counts) const = 0;

 protected:
  TokenSets(bool within_micro_step, std::int64_t sets) : within_micro_step_(within_micro_step), sets_(sets) {}

 private:
  bool within_micro_step_;
  std::int64_t sets_;
};

}  // namespace conclave
