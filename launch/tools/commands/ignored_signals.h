// Ignored signals: `nohup` and job managers start a process with signals ignored. Libraries may put handlers
// of their own there while they are loaded: UCX, which Open MPI uses, takes SIGHUP for its debug mode.
#pragma once

namespace conclave {

/// Ignores again the signals that were ignored before any library was loaded, for this process and those that
/// it becomes. Call it first in main.
void restore_ignored_signals();

}  // namespace conclave
