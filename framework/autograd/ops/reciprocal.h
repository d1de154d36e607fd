// The reciprocal of a learned number.
#pragma once

#include "framework/autograd/tape.h"

namespace conclave {

/// factor / max(x, least), `width` times. Below `least` x has no gradient.
Variable spread_reciprocal(Tape& tape, const Variable& x,                     // [1]
                           std::int64_t width, double factor, double least);  // -> [width]

}  // namespace conclave
