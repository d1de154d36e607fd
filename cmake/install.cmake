# What `cmake --install` puts under its prefix: the command with its manual page, shell completion and recipes; the
# library libconclave with its headers, and what find_package(Conclave) reads.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

# The house in one shared library, whose interface keeps its version until the minor number changes. Of launch/ it has
# what trains, saves, evaluates and plans; not the tools, and not what writes TensorBoard's files:
# Debian's archive of protobuf-lite cannot be put into a shared library, and its own shared one would meet that of
# SentencePiece.
set(folders base device tensor kernels autograd recipe data store telemetry parallel layers moe optim train plan)
add_library(conclave_shared SHARED)
foreach(folder ${folders})
  target_sources(conclave_shared PRIVATE $<TARGET_OBJECTS:conclave_${folder}>)
  # An archive brings the libraries that it is linked with; of its own objects nothing is left to take.
  target_link_libraries(conclave_shared PRIVATE $<BUILD_INTERFACE:conclave_${folder}>)
endforeach()
configure_file(${CMAKE_CURRENT_LIST_DIR}/libconclave.map.in ${CMAKE_BINARY_DIR}/libconclave.map @ONLY)
target_link_options(conclave_shared PRIVATE "LINKER:--version-script=${CMAKE_BINARY_DIR}/libconclave.map"
                    "LINKER:--no-undefined")
set_target_properties(conclave_shared PROPERTIES
                      OUTPUT_NAME conclave EXPORT_NAME Conclave LINKER_LANGUAGE CXX
                      VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR}
                      LINK_DEPENDS ${CMAKE_BINARY_DIR}/libconclave.map)
target_include_directories(conclave_shared INTERFACE $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}/conclave>)
target_compile_features(conclave_shared INTERFACE cxx_std_20)
set_target_properties(conclave_shared conclave PROPERTIES INSTALL_RPATH_USE_LINK_PATH ON)

# Nothing is copied before everything is built: the quickstart, for one, builds the command alone.
install(CODE "
foreach(built IN ITEMS \"$<TARGET_FILE:conclave>\" \"$<TARGET_FILE:conclave_shared>\" \"${CMAKE_BINARY_DIR}/conclave.1\")
  if(NOT EXISTS \"\${built}\")
    message(FATAL_ERROR \"Nothing was installed, since \${built} is not built yet. \"
            \"Build everything first: cmake --build \\\"${CMAKE_BINARY_DIR}\\\"\")
  endif()
endforeach()")
install(TARGETS conclave RUNTIME)
install(TARGETS conclave_shared EXPORT ConclaveTargets LIBRARY)

# Headers under include/conclave, included as here: "layers/moe/router.h". Left out is what only the inside needs.
install(DIRECTORY framework parallel layers optim launch DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/conclave
        FILES_MATCHING PATTERN "*.h"
        PATTERN "launch/tools" EXCLUDE PATTERN "launch/train/run" EXCLUDE
        PATTERN "launch/packaging" EXCLUDE PATTERN "launch/completion" EXCLUDE
        PATTERN "kernels/cpu" EXCLUDE PATTERN "kernels/cuda" EXCLUDE PATTERN "kernels/onednn" EXCLUDE PATTERN "device/cuda" EXCLUDE
        PATTERN "device/stand_in" EXCLUDE PATTERN "device/runtime.h" EXCLUDE PATTERN "device/sanitizer*" EXCLUDE
        PATTERN "parallel/nccl" EXCLUDE
        PATTERN "telemetry/tensorboard" EXCLUDE PATTERN "data/tokenizer_json" EXCLUDE PATTERN "hdf5_internal.h" EXCLUDE PATTERN "json_text.h" EXCLUDE)
install(FILES ${CMAKE_BINARY_DIR}/framework/base/version.h
        DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/conclave/framework/base)

set(package_directory ${CMAKE_INSTALL_LIBDIR}/cmake/Conclave)
install(EXPORT ConclaveTargets NAMESPACE Conclave:: DESTINATION ${package_directory})
configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/ConclaveConfig.cmake.in ${CMAKE_BINARY_DIR}/ConclaveConfig.cmake
                              INSTALL_DESTINATION ${package_directory})
write_basic_package_version_file(${CMAKE_BINARY_DIR}/ConclaveConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/ConclaveConfig.cmake ${CMAKE_BINARY_DIR}/ConclaveConfigVersion.cmake
        DESTINATION ${package_directory})

# The manual page is made of the command's own help.
add_custom_command(OUTPUT ${CMAKE_BINARY_DIR}/conclave.1
                   COMMAND bash ${PROJECT_SOURCE_DIR}/launch/make_manual_page.sh $<TARGET_FILE:conclave>
                           > ${CMAKE_BINARY_DIR}/conclave.1
                   DEPENDS conclave ${PROJECT_SOURCE_DIR}/launch/make_manual_page.sh VERBATIM)
add_custom_target(manual_page ALL DEPENDS ${CMAKE_BINARY_DIR}/conclave.1)
install(FILES ${CMAKE_BINARY_DIR}/conclave.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
install(FILES launch/completion/conclave.bash RENAME conclave
        DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions)
install(FILES launch/completion/_conclave DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/site-functions)
install(FILES README.md CHANGELOG.md CITATION.cff LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(DIRECTORY examples DESTINATION ${CMAKE_INSTALL_DATADIR}/conclave)
