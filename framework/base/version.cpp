// The version that was compiled into the library.
#include "framework/base/version.h"

namespace conclave {

const char* library_version() {
  return CONCLAVE_VERSION;
}

}  // namespace conclave
