// A dry step of a model of any depth, in any number of micro-batches. A few of both are run, and the rest
// follows in a line. Each further micro-batch or block brings the same buffers, collectives and kernels as
// the one before. That is exact for bytes, calls and operations. Memory is exact where the step peaks in the
// last block or behind it, and up to the allocator's rounding of single buffers.
#pragma once

#include "launch/plan/dry_run.h"

namespace conclave {

/// Throws Fault::request with one sentence where not even one micro-batch of a few blocks can be run dry in a
/// moment.
void check_can_be_planned(const Recipe& recipe, int ranks);

/// Runs the step as the first of `ranks` ranks.
DryStep dry_step_of_few(const Recipe& recipe, int ranks, const ExpertChoice& choice);

}  // namespace conclave
