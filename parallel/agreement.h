// Agreement: all ranks fail together or go on together, with one message per job instead of one per rank.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "parallel/communicator.h"

namespace conclave {

/// Returns what the action threw on this rank as an Error, whatever it was; none if it threw nothing.
std::optional<Error> failure_of(const std::function<void()>& action);

/// Runs the action on every rank, then all ranks learn whether one failed. If so, all ranks throw the same
/// Error, that of the lowest failing rank. Its Fault is kept, and its sentence is preceded by "[rank r] "
/// when there are several ranks. The action must not contain collectives, because a rank that fails would
/// leave its partners waiting. Collective.
void agree(Communicator& communicator, const std::function<void()>& action);

/// Says whether it is true on some rank. Collective.
bool is_true_on_any(Communicator& communicator, bool own);

/// Requires that all ranks hold the same text, for instance the resolved recipe. Otherwise all ranks throw
/// the same Fault::request, which names the first rank that differs from rank 0. It compares hashes.
/// Collective.
void require_same(Communicator& communicator, const std::string& name, const std::string& value);

}  // namespace conclave
