// Pictures for event files: heat maps of small matrices, and PNG as their form on disk.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace conclave {

/// Red, green and blue of each pixel, row by row from the top: [height, width, 3].
struct Picture {
  std::int64_t width = 0, height = 0;
  std::vector<std::uint8_t> pixels;
};

/// The colour of a share from 0 (dark blue) to 1 (yellow); values outside get the colours of the ends. It is
/// viridis, whose steps look alike to all eyes (Smith and van der Walt, 2015), interpolated between nine of
/// its colours.
std::array<std::uint8_t, 3> viridis(double share);

/// A matrix [rows, columns], row 0 on top, each value a square of the same size; `brightest` and above are
/// yellow. Values that are no number are grey.
Picture heat_map(const std::vector<double>& values, std::int64_t rows, std::int64_t columns,
                 double brightest);

/// The bytes of the picture as a PNG file.
std::string to_png(const Picture& picture);

}  // namespace conclave
