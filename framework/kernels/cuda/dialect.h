// The words that device code is written in. The compiler nvcc reads them as CUDA. The host compiler reads
// them as code for the emulated device, where a thread is a fiber and mistakes have names (docs/cuda.md). The
// words:
// clang-format off
//
//   KERNEL, DEVICE               before a function that is launched, and one that device code calls
//   UNROLL                       before a loop over what a thread holds in registers
//   SHARED(type, name, count)    an array of the block, its size known at compile time
//   SHARED_DYNAMIC(type, name)   the block's array of LaunchShape::shared_bytes
//   thread_index() block_index() block_size() block_count() lane_index() warp_index()
//   sync_block(), sync_warp()    wait for all threads of the block, of the warp of 32
//   shuffle(value, lane), shuffle_xor(value, mask)    another lane's value; all 32 lanes take part
//   copy_async(to, from)         16 bytes, both aligned to them, into shared memory; begun, not done
//   commit_copies()              what this thread began since the last call becomes a batch
//   wait_copies<n>()             this thread's batches but the last n are done; other threads' after a barrier
//   atomic_add(pointer, value)   integers alone: sums of floating-point numbers would depend on the order
//   launch(shape, kernel, arguments...)               by the host, as what follows
//   most_shared_bytes(), has_matrix_units()           what a block may have
//
// clang-format on
// matrix_tile.h has the words for tensor cores.
//
// Blocks and grids have one dimension. Blocks have block_threads threads unless a launch says otherwise.
#pragma once

#ifdef __CUDACC__
#include "framework/kernels/cuda/dialect_cuda.cuh"
#else
#include "framework/kernels/cuda/dialect_emulated.h"
#endif
