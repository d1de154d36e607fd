// A machine that refuses, to be loaded before a program's own libraries (LD_PRELOAD): calls fail as they do
// where a limit is reached or a file system lacks something. The environment says which.
//   CONCLAVE_REFUSE_THREADS=FILE   no thread can be started while FILE is there
//   CONCLAVE_REFUSE_MEMORY=FILE    a thread that is started while FILE is there gets no memory from `new`
//   CONCLAVE_REFUSE_LOCKS=1        flock: No locks available
//   CONCLAVE_REFUSE_CODE=1         no memory may be made executable by the program itself
//   CONCLAVE_REFUSE_HANGUPS=1      a library that is loaded ends the process at SIGHUP, whatever was asked
//   for before
#include <dlfcn.h>
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <new>
#include <string_view>

namespace {

template <class Function>
Function next(const char* name) {
  return reinterpret_cast<Function>(::dlsym(RTLD_NEXT, name));
}

bool refuses_code(int protection) {
  return (protection & PROT_EXEC) != 0 && (protection & PROT_WRITE) != 0 &&
         std::getenv("CONCLAVE_REFUSE_CODE") != nullptr;
}

/// A thread without memory.
thread_local bool gets_no_memory = false;

bool is_there(const char* variable) {
  const char* file = std::getenv(variable);
  return file != nullptr && ::access(file, F_OK) == 0;
}

struct Start {
  void* (*work)(void*);
  void* argument;
};

/// In the command alone, and not in what starts it.
__attribute__((constructor)) void take_hangups() {
  if (std::getenv("CONCLAVE_REFUSE_HANGUPS") == nullptr) return;
  if (std::string_view(program_invocation_short_name) != "conclave") return;
  std::signal(SIGHUP, [](int) { ::_exit(1); });
}

void* run_without_memory(void* start) {
  const Start given = *static_cast<Start*>(start);
  std::free(start);
  gets_no_memory = true;
  return given.work(given.argument);
}

}  // namespace

void* operator new(std::size_t bytes) {
  if (gets_no_memory) throw std::bad_alloc();
  if (void* memory = std::malloc(bytes > 0 ? bytes : 1)) return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept {
  std::free(memory);
}
void operator delete(void* memory, std::size_t) noexcept {
  std::free(memory);
}

extern "C" {

int pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*work)(void*),
                   void* argument) {
  static const auto real = next<decltype(&pthread_create)>("pthread_create");
  if (is_there("CONCLAVE_REFUSE_THREADS")) return EAGAIN;
  if (!is_there("CONCLAVE_REFUSE_MEMORY")) return real(thread, attributes, work, argument);
  auto* start = static_cast<Start*>(std::malloc(sizeof(Start)));
  *start = {work, argument};
  return real(thread, attributes, run_without_memory, start);
}

int flock(int file, int operation) {
  static const auto real = next<int (*)(int, int)>("flock");
  if (std::getenv("CONCLAVE_REFUSE_LOCKS") == nullptr) return real(file, operation);
  errno = ENOLCK;
  return -1;
}

int mprotect(void* address, std::size_t bytes, int protection) noexcept {
  static const auto real = next<int (*)(void*, std::size_t, int)>("mprotect");
  if (!refuses_code(protection)) return real(address, bytes, protection);
  errno = EACCES;
  return -1;
}

void* mmap(void* address, std::size_t bytes, int protection, int flags, int file, off_t offset) noexcept {
  static const auto real = next<void* (*)(void*, std::size_t, int, int, int, off_t)>("mmap");
  if (!refuses_code(protection)) return real(address, bytes, protection, flags, file, offset);
  errno = EACCES;
  return MAP_FAILED;
}

}  // extern "C"
