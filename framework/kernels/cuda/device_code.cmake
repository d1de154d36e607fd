# The families of device code, which the emulated device and CUDA share.
set(device_code attention.cu cross_entropy.cu elementwise.cu embedding.cu norm.cu permutation.cu routing.cu)
