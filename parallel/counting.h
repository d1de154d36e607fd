// The communicator of a dry run: this process is one rank of any number, and the others are not there.
// Traffic is counted as everywhere. Integers, and all tensors in the host's memory, come back as if every
// other rank had handed in the same. Floating-point tensors of a device that computes nothing stay as they
// are.
#pragma once

#include "parallel/communicator.h"

namespace conclave {

/// OtherRanks speaks for the ranks that are not there, where doing the same as this one would be wrong.
class OtherRanks {
 public:
  virtual ~OtherRanks() = default;
  /// The ranks are about to gather `in`.
  virtual void before_gather(const Communicator& /*ranks*/, const Tensor& /*in*/) {}
  /// Fills `out` of an exchange of rows, in which each rank sends one row to each. It returns false where the
  /// other ranks do the same.
  virtual bool answer_exchange(const Communicator& /*ranks*/, const Tensor& /*in*/, const Tensor& /*out*/) {
    return false;
  }
};

std::shared_ptr<Communicator> counting_communicator(int rank, int size,
                                                    std::shared_ptr<OtherRanks> others = nullptr);

}  // namespace conclave
