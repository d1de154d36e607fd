#include "framework/telemetry/tensorboard/picture.h"

#include <png.h>

#include <algorithm>
#include <cmath>

#include "framework/base/error.h"

namespace conclave {

std::array<std::uint8_t, 3> viridis(double share) {
  constexpr std::array<std::array<double, 3>, 9> colours = {{{0x44, 0x01, 0x54},
                                                             {0x47, 0x2d, 0x7b},
                                                             {0x3b, 0x52, 0x8b},
                                                             {0x2c, 0x72, 0x8e},
                                                             {0x21, 0x91, 0x8c},
                                                             {0x28, 0xae, 0x80},
                                                             {0x5e, 0xc9, 0x62},
                                                             {0xad, 0xdc, 0x30},
                                                             {0xfd, 0xe7, 0x25}}};
  const double place = std::clamp(share, 0.0, 1.0) * (colours.size() - 1);
  const auto below = std::min(static_cast<std::size_t>(place), colours.size() - 2);
  const double part = place - static_cast<double>(below);
  std::array<std::uint8_t, 3> colour;
  for (std::size_t i = 0; i < 3; ++i)
    colour[i] = static_cast<std::uint8_t>(
        std::lround(colours[below][i] + part * (colours[below + 1][i] - colours[below][i])));
  return colour;
}

Picture heat_map(const std::vector<double>& values, std::int64_t rows, std::int64_t columns,
                 double brightest) {
  check(
      rows > 0 && columns > 0 && static_cast<std::int64_t>(values.size()) == rows * columns && brightest > 0,
      "heat_map: ", values.size(), " values came for ", rows, " rows and ", columns, " columns");
  // Large enough to be seen, and never wider than a screen.
  const std::int64_t side = std::clamp<std::int64_t>(512 / std::max(rows, columns), 1, 16);
  Picture picture{columns * side, rows * side, {}};
  picture.pixels.reserve(static_cast<std::size_t>(picture.width * picture.height * 3));
  for (std::int64_t y = 0; y < picture.height; ++y)
    for (std::int64_t x = 0; x < picture.width; ++x) {
      const double value = values[static_cast<std::size_t>(y / side * columns + x / side)];
      const auto colour =
          std::isfinite(value) ? viridis(value / brightest) : std::array<std::uint8_t, 3>{128, 128, 128};
      picture.pixels.insert(picture.pixels.end(), colour.begin(), colour.end());
    }
  return picture;
}

std::string to_png(const Picture& picture) {
  check(static_cast<std::int64_t>(picture.pixels.size()) == picture.width * picture.height * 3,
        "to_png: ", picture.pixels.size(), " bytes came for ", picture.width, " x ", picture.height,
        " pixels");
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  image.width = static_cast<png_uint_32>(picture.width);
  image.height = static_cast<png_uint_32>(picture.height);
  image.format = PNG_FORMAT_RGB;
  png_alloc_size_t bytes = 0;
  const bool measured =
      png_image_write_to_memory(&image, nullptr, &bytes, 0, picture.pixels.data(), 0, nullptr) != 0;
  check(measured, "to_png: ", image.message);
  std::string png(bytes, '\0');
  const bool written =
      png_image_write_to_memory(&image, png.data(), &bytes, 0, picture.pixels.data(), 0, nullptr) != 0;
  check(written, "to_png: ", image.message);
  png.resize(bytes);
  return png;
}

}  // namespace conclave
