# The families of device code, which the emulated device and CUDA share: every .cu file beside this one but the one that
# only CUDA has.
file(GLOB device_code CONFIGURE_DEPENDS RELATIVE ${CMAKE_CURRENT_LIST_DIR} ${CMAKE_CURRENT_LIST_DIR}/*.cu)
list(REMOVE_ITEM device_code cuda_kernels.cu)
