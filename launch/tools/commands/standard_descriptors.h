// Standard descriptors: a process may be started with standard input, output or error closed (`>&-`). The
// next file that it opens would get that number, and its output would land in that file.
#pragma once

namespace conclave {

/// Opens on /dev/null those of the descriptors 0 to 2 that are closed. They are open for reading alone, so
/// that a write there stays an error, as it was. Call it before anything else is opened.
void open_standard_descriptors();

}  // namespace conclave
