// The CPU backend: the reference for every other one, and the product on machines without a GPU. One file per
// family.
#pragma once

#include "framework/kernels/kernels.h"

namespace conclave::cpu {

void put_attention(Kernels& kernels);
void put_cross_entropy(Kernels& kernels);
void put_elementwise(Kernels& kernels);
void put_embedding(Kernels& kernels);
void put_matrix_product(Kernels& kernels);
void put_norm(Kernels& kernels);
void put_permutation(Kernels& kernels);
void put_pools(Kernels& kernels);
void put_rope(Kernels& kernels);
void put_routing(Kernels& kernels);

constexpr auto parts = {put_attention, put_cross_entropy, put_elementwise, put_embedding, put_matrix_product,
                        put_norm,      put_permutation,   put_pools,       put_rope,      put_routing};

}  // namespace conclave::cpu
