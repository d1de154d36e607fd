#include "framework/kernels/cuda/device_kernels.h"

namespace conclave::DIALECT {

void put_all(Kernels& kernels) {
  put_attention(kernels);
  put_bias(kernels);
  put_cross_entropy(kernels);
  put_elementwise(kernels);
  put_embedding(kernels);
  put_grouped_product(kernels);
  put_matrix_product(kernels);
  put_norm(kernels);
  put_permutation(kernels);
  put_pools(kernels);
  put_reciprocal(kernels);
  put_routing(kernels);
  put_token_masks(kernels);
}

}  // namespace conclave::DIALECT
