"""Spack package of Conclave. There is no published archive: it is built from a copy of the repository.

    spack repo create my_repo && mkdir -p my_repo/packages/conclave
    cp launch/packaging/spack/package.py my_repo/packages/conclave/ && spack repo add my_repo
    spack dev-build -d . conclave@0.1.0
"""

from spack.package import *


class Conclave(CMakePackage):
    """Pretraining of mixture-of-experts transformers over MPI, in C++."""

    version("0.1.0")

    variant("native", default=False, description="every instruction of the building machine, past Spack's target")

    depends_on("c", type="build")
    depends_on("cxx", type="build")
    depends_on("cmake@3.22:", type="build")
    depends_on("ninja", type="build")
    depends_on("pkgconfig", type="build")
    depends_on("mpi")
    depends_on("onednn@2.7:3")
    depends_on("hdf5@1.10:~mpi")
    depends_on("yaml-cpp@0.7:")
    depends_on("sentencepiece")
    depends_on("xxhash@0.8:")
    depends_on("nlohmann-json@3.11:")
    depends_on("protobuf@3.21:~shared")
    depends_on("isa-l")
    depends_on("libpng")
    depends_on("zlib-api")
    depends_on("zstd")
    depends_on("xz")

    conflicts("%gcc@:11", msg="Conclave is C++20 and needs GCC 12")

    generator("ninja")

    def cmake_args(self):
        return [
            self.define("CONCLAVE_TESTS", False),
            self.define_from_variant("CONCLAVE_NATIVE", "native"),
        ]
