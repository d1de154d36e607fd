// NamedRange is a named stretch of the host's work. Profilers of a GPU show it beside the work that was
// queued in it (NVTX). Without CUDA the names serve the history of the emulated device.
#pragma once

namespace conclave {

/// Ranges nest and end in the reverse order, on the thread that began them. The name must outlive the range.
class NamedRange {
 public:
  explicit NamedRange(const char* name);
  ~NamedRange();
  NamedRange(const NamedRange&) = delete;
  NamedRange& operator=(const NamedRange&) = delete;

 private:
  const char* outer_;
};

/// The innermost range of this thread; null outside of all.
const char* current_range();

/// Tell the profiler of a range: nvtx.cpp does so, no_nvtx.cpp does nothing.
void tell_profiler_begin(const char* name);
void tell_profiler_end();

}  // namespace conclave
