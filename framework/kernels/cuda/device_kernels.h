// The backend of a GPU, and of the emulated one. Checks and launches stand in .cu files, device code in .cuh
// files, one family each. A build that has both backends compiles them twice, into namespaces cuda and
// emulated. Tensors are float32 or bfloat16; sums are float32, or float64 where the interface says so.
#pragma once

#include "framework/kernels/cuda/dialect.h"
#include "framework/kernels/kernels.h"

namespace conclave::DIALECT {

void put_attention(Kernels& kernels);
void put_bias(Kernels& kernels);
void put_cross_entropy(Kernels& kernels);
void put_elementwise(Kernels& kernels);
void put_embedding(Kernels& kernels);
void put_grouped_product(Kernels& kernels);
void put_matrix_product(Kernels& kernels);
void put_norm(Kernels& kernels);
void put_permutation(Kernels& kernels);
void put_pools(Kernels& kernels);
void put_reciprocal(Kernels& kernels);
void put_routing(Kernels& kernels);
void put_token_masks(Kernels& kernels);
/// All of them (device_kernels.cu).
void put_all(Kernels& kernels);

}  // namespace conclave::DIALECT
