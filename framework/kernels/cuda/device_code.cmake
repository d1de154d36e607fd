# The families of device code, which the emulated device and CUDA share.
set(device_code attention.cu attention_tiles.cu cross_entropy.cu elementwise.cu embedding.cu grouped_product.cu
                matrix_product.cu norm.cu permutation.cu pools.cu routing.cu)
