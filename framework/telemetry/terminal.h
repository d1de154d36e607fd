// A file descriptor leads to a person's terminal, or to a file, a pipe, a log collector; these functions say
// which.
#pragma once

#include <string>

namespace conclave {

/// True where text written to the descriptor (1 or 2) ends on a terminal. Under Open MPI a rank's standard
/// output is always a pseudo-terminal of mpirun's. So the question goes to mpirun's own descriptor there.
bool is_terminal(int descriptor);

/// True where colours are welcome: the descriptor is a terminal, TERM is not "dumb", and NO_COLOR is not set
/// (https://no-color.org).
bool wants_color(int descriptor);

/// Columns of the terminal, or 100 where it does not say.
int terminal_columns(int descriptor);

/// Writes the whole text, over interruptions and short writes; false where the descriptor refuses it.
bool write_all(int descriptor, const std::string& text);

}  // namespace conclave
