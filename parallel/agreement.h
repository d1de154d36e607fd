// Agreement: all ranks fail together or go on together, with one message per job instead of one per rank.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "parallel/communicator.h"

namespace conclave {

/// What the action threw on this rank, whatever it was, as an Error; none if it threw nothing.
std::optional<Error> failure_of(const std::function<void()>& action);

/// Runs the action on every rank, then all ranks learn whether one failed. If so, all ranks throw the same
/// Error: that of the lowest failing rank, its Fault kept, its sentence preceded by "[rank r] " when there
/// are several ranks. The action must not contain collectives: a rank that fails would leave its partners
/// waiting. Collective.
void agree(Communicator& communicator, const std::function<void()>& action);

/// Says whether it is true on some rank. Collective.
bool is_true_on_any(Communicator& communicator, bool own);

/// All ranks must hold the same text, for instance the resolved recipe; otherwise all ranks throw the same
/// Fault::request, which names the first rank that differs from rank 0. Compares hashes. Collective.
void require_same(Communicator& communicator, const std::string& name, const std::string& value);

}  // namespace conclave
