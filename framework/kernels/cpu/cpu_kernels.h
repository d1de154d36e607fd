// The CPU backend is the reference for every other one, and the product on machines without a GPU. Each
// family has one file.
#pragma once

#include "framework/kernels/kernels.h"

namespace conclave::cpu {

/// Below this many elements, waking other threads costs more than it saves.
constexpr std::int64_t small = 16384;

void put_attention(Kernels& kernels);
void put_bias(Kernels& kernels);
void put_cross_entropy(Kernels& kernels);
void put_elementwise(Kernels& kernels);
void put_embedding(Kernels& kernels);
void put_matrix_product(Kernels& kernels);
void put_norm(Kernels& kernels);
void put_permutation(Kernels& kernels);
void put_pools(Kernels& kernels);
void put_rope(Kernels& kernels);
void put_reciprocal(Kernels& kernels);
void put_routing(Kernels& kernels);
void put_token_masks(Kernels& kernels);
/// All of them (cpu_kernels.cpp).
void put_all(Kernels& kernels);

}  // namespace conclave::cpu
