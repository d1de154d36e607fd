// Observers: the list of what a training run does beside its steps.
#pragma once

#include <memory>
#include <vector>

#include "launch/train/run/observer.h"

namespace conclave {

/// The observers that the run's recipe asks for, in the order in which they are told. Collective.
std::vector<std::unique_ptr<RunObserver>> observers_of(const RunView& run);

}  // namespace conclave
