#pragma once

#include "framework/autograd/tape.h"

namespace conclave {

/// cap * tanh(x / cap): nearly x where x is small, and never beyond the cap.
Variable soft_cap(Tape& tape, const Variable& x, double cap);

}  // namespace conclave
