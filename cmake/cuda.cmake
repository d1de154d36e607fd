# Finds what the device cuda is built with, and says in one sentence what is missing.
set(CMAKE_CUDA_ARCHITECTURES 80 90 100 CACHE STRING "GPUs to compile for; 75 is the least")
find_program(CONCLAVE_NVCC nvcc HINTS ENV CUDA_HOME PATHS /usr/local/cuda PATH_SUFFIXES bin)
set(missing)
if(CONCLAVE_NVCC)
  set(CMAKE_CUDA_COMPILER ${CONCLAVE_NVCC} CACHE FILEPATH "")
  enable_language(CUDA)
  # CMake before 3.27 does not know that this nvcc has C++20.
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
  set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
  find_package(CUDAToolkit QUIET)
  if(NOT TARGET CUDA::cudart)
    list(APPEND missing "the CUDA runtime")
  endif()
  if(NOT TARGET CUDA::cublas)
    list(APPEND missing "cuBLAS")
  endif()
  find_path(NCCL_INCLUDE_DIR nccl.h HINTS ${CUDAToolkit_INCLUDE_DIRS})
  find_library(NCCL_LIBRARY nccl HINTS ${CUDAToolkit_LIBRARY_DIR})
  if(NOT NCCL_INCLUDE_DIR OR NOT NCCL_LIBRARY)
    list(APPEND missing "NCCL")
  endif()
else()
  list(APPEND missing "nvcc")
endif()
if(missing)
  list(JOIN missing ", " missing)
  message(FATAL_ERROR "The device cuda needs ${missing}, which is not found here. Install it, or set CUDA_HOME; "
                      "without a GPU use `cmake --preset release`.")
endif()

# How every .cu file is compiled. std::bit_cast in device code needs --expt-relaxed-constexpr.
function(conclave_cuda_options target)
  set_target_properties(${target} PROPERTIES CUDA_STANDARD 20
                        CUDA_COMPILER_LAUNCHER ${PROJECT_SOURCE_DIR}/cmake/keep_ptxas_log.sh)
  target_compile_options(${target} PRIVATE
                         $<$<COMPILE_LANGUAGE:CUDA>:--expt-relaxed-constexpr -Xptxas=-v -Werror=all-warnings
                         -Xcompiler=-Wall,-Wextra,-Werror,-Wno-missing-field-initializers>)
endfunction()
