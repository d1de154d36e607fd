// Standard descriptors: a process may be started with standard input, output or error closed (`>&-`). The
// next file that it opens would get that number, and what is printed would land in it.
#pragma once

namespace conclave {

/// Opens those of the descriptors 0 to 2 that are closed on /dev/null, for reading alone: what is written
/// there stays an error, as it was. Call before anything else is opened.
void open_standard_descriptors();

}  // namespace conclave
