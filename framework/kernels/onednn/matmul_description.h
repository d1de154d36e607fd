// The one call in which oneDNN 2 and oneDNN 3 differ for us. CMake compiles the file of the version that it
// found.
#pragma once

#include <oneapi/dnnl/dnnl.hpp>

namespace conclave::onednn {

/// Describes c [m, n] = a [m, k] b [k, n] for the engine. Throws dnnl::error where oneDNN has no
/// implementation.
dnnl::matmul::primitive_desc describe_matmul(const dnnl::engine& engine, const dnnl::memory::desc& a,
                                             const dnnl::memory::desc& b, const dnnl::memory::desc& c,
                                             const dnnl::primitive_attr& attributes);

}  // namespace conclave::onednn
