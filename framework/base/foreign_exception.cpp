#include "framework/base/foreign_exception.h"

#include <atomic>
#include <cstdlib>
#include <ios>
#include <new>
#include <system_error>

namespace conclave {
namespace {

/// Made before it is needed: a copy of an Error takes no memory.
const Error no_memory(Fault::machine, "The machine has no memory left for this process.");
std::atomic<void*> kept_memory{std::malloc(std::size_t{1} << 18)};

}  // namespace

Error error_of(const std::exception_ptr& thrown) {
  try {
    std::rethrow_exception(thrown);
  } catch (const Error& error) {
    return error;
  } catch (const std::bad_alloc&) {
    std::free(kept_memory.exchange(nullptr));
    return no_memory;
  } catch (const std::ios_base::failure& error) {  // what a stream's iterators throw where a disk fails
    return Error(Fault::machine,
                 join_text("A file cannot be read to its end: ", error.code().message(), "."));
  } catch (const std::system_error& error) {
    // std::thread throws this where the system gives no thread.
    if (error.code() == std::errc::resource_unavailable_try_again)
      return Error(
          Fault::machine,
          "The machine gives this process no further thread. `ulimit -u`, or the limit of processes of "
          "its container, is reached; raise it, or use fewer ranks or threads.");
    return Error(Fault::internal, error.what());
  } catch (const std::exception& error) {
    return Error(Fault::internal, error.what());
  } catch (...) {
    return Error(Fault::internal, "An exception of unknown type was thrown.");
  }
}

}  // namespace conclave
