// Event files hold what was written, by a reader of its own, and tell TensorBoard about restarts.
#include "framework/telemetry/tensorboard/event_file.h"

#include <gtest/gtest.h>
#include <png.h>

#include <cmath>
#include <limits>
#include <set>

#include "framework/base/error.h"
#include "tests/framework/telemetry/temporary.h"
#include "tests/framework/telemetry/tensorboard/event_reader.h"

namespace conclave {
namespace {
namespace fs = std::filesystem;

std::vector<ReadEvent> read_events(const fs::path& path) {
  std::vector<ReadEvent> events;
  for (const std::string& record : read_records(read_text(path.string()))) events.push_back(to_event(record));
  return events;
}

std::set<std::string> names_in(const std::string& directory) {
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(directory)) names.insert(entry.path().filename().string());
  return names;
}

Picture small_picture() {
  return heat_map({0, 1, 2, 3, std::nan(""), 9}, 2, 3, 3);
}

TEST(EventFile, HoldsScalarsHistogramsAndPictures) {
  const TemporaryDirectory scratch;
  const std::vector<double> numbers = {1, 2, 2.5, 4};
  EventFile file(scratch.file("events"));
  file.write(7, {.scalars = {{"train/loss", 1.25}, {"train/rate", 1e-3}}});
  file.write(
      8, {.histograms = {{"load", numbers}, {"even", {1, 1, 1}}}, .pictures = {{"map", small_picture()}}});
  file.write(9, {});  // nothing known, nothing written

  const std::vector<ReadEvent> events = read_events(file.path());
  ASSERT_EQ(events.size(), 3u);
  EXPECT_EQ(events[0].version, "brain.Event:2");
  EXPECT_GT(events[0].wall_time, 1.7e9);
  EXPECT_EQ(events[1].step, 7);
  EXPECT_EQ(events[1].scalars, (std::map<std::string, float>{{"train/loss", 1.25f}, {"train/rate", 1e-3f}}));
  EXPECT_EQ(events[2].step, 8);

  const WireMessage& load = events[2].histograms.at("load");
  EXPECT_EQ(load.real(1), 1);
  EXPECT_EQ(load.real(2), 4);
  EXPECT_EQ(load.real(3), 4);
  EXPECT_EQ(load.real(4), 9.5);
  EXPECT_EQ(load.real(5), 1 + 4 + 6.25 + 16);
  const std::vector<double> limits = packed_doubles(load.text(6)), counts = packed_doubles(load.text(7));
  ASSERT_EQ(limits.size(), 30u);
  ASSERT_EQ(counts.size(), 30u);
  EXPECT_EQ(limits.back(), 4);
  for (std::size_t i = 0; i < limits.size(); ++i) {
    const double low = i == 0 ? 1 : limits[i - 1];
    double expected = 0;
    for (const double number : numbers)
      if (number >= low && (number < limits[i] || i + 1 == limits.size())) expected += 1;
    EXPECT_EQ(counts[i], expected) << "bucket " << i;
  }
  const WireMessage& even = events[2].histograms.at("even");
  EXPECT_EQ(packed_doubles(even.text(6)), std::vector<double>{1});
  EXPECT_EQ(packed_doubles(even.text(7)), std::vector<double>{3});

  const WireMessage& map = events[2].pictures.at("map");
  const Picture picture = small_picture();
  EXPECT_EQ(map.integer(1), picture.height);
  EXPECT_EQ(map.integer(2), picture.width);
  EXPECT_EQ(map.integer(3), 3);
  const std::string png = map.text(4);
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  ASSERT_NE(png_image_begin_read_from_memory(&image, png.data(), png.size()), 0) << image.message;
  image.format = PNG_FORMAT_RGB;
  std::vector<std::uint8_t> pixels(PNG_IMAGE_SIZE(image));
  ASSERT_NE(png_image_finish_read(&image, nullptr, pixels.data(), 0, nullptr), 0) << image.message;
  EXPECT_EQ(pixels, picture.pixels);
}

TEST(EventFile, ChecksumsAreMaskedCrc32c) {
  EXPECT_EQ(plain_crc32c("123456789"), 0xe3069283u);  // the reader's own, against the published value
  EXPECT_EQ(masked_crc32c("123456789"), (0xe3069283u >> 15 | 0xe3069283u << 17) + 0xa282ead8u);
}

TEST(EventFile, TheReaderSeesDamage) {
  const TemporaryDirectory scratch;
  EventFile file(scratch.file("events"));
  file.write(1, {.scalars = {{"loss", 2}}});
  std::string bytes = read_text(file.path().string());
  EXPECT_EQ(read_records(bytes).size(), 2u);
  bytes[bytes.size() - 6] ^= 1;
  EXPECT_THROW(read_records(bytes), std::runtime_error);
  bytes[bytes.size() - 6] ^= 1;
  bytes.pop_back();
  EXPECT_THROW(read_records(bytes), std::runtime_error);
}

TEST(EventFile, AResumedRunTellsTensorBoardToForgetLaterSteps) {
  const TemporaryDirectory scratch;
  const std::string directory = scratch.file("events");
  fs::path first;
  {
    EventFile file(directory);
    first = file.path();
    for (std::int64_t step = 1; step <= 8; ++step) file.write(step, {.scalars = {{"loss", 1}}});
  }
  EventFile resumed(directory, 5);
  resumed.write(6, {.scalars = {{"loss", 2}}});
  EXPECT_GT(resumed.path().filename(), first.filename());  // read in this order, within the same second too
  EXPECT_EQ(names_in(directory).size(), 2u);
  const std::vector<ReadEvent> events = read_events(resumed.path());
  ASSERT_EQ(events.size(), 3u);
  EXPECT_EQ(events[0].version, "brain.Event:2");
  EXPECT_TRUE(events[1].is_start);
  EXPECT_EQ(events[1].step, 6);
  EXPECT_FALSE(events[2].is_start);
}

TEST(EventFile, ANewRunRemovesTheFilesOfAnEarlierOne) {
  const TemporaryDirectory scratch;
  const std::string directory = scratch.file("events");
  const fs::path earlier = EventFile(directory).path();
  std::ofstream(directory + "/notes.txt") << "mine";
  const EventFile file(directory);
  EXPECT_EQ(names_in(directory), (std::set<std::string>{file.path().filename().string(), "notes.txt"}));
}

TEST(EventFile, SaysWhereItCannotWrite) {
  const TemporaryDirectory scratch;
  std::ofstream(scratch.file("events")) << "a file";
  try {
    const EventFile file(scratch.file("events"));
    FAIL() << "a file was taken for a directory";
  } catch (const Error& error) {
    EXPECT_EQ(error.fault(), Fault::request);
    EXPECT_NE(std::string(error.what()).find("events"), std::string::npos) << error.what();
  }
}

TEST(Viridis, GrowsBrighterAllTheWay) {
  const auto brightness = [](double share) {  // of Rec. 709, near enough for an order
    const auto colour = viridis(share);
    return 0.2126 * colour[0] + 0.7152 * colour[1] + 0.0722 * colour[2];
  };
  for (int i = 0; i < 100; ++i) EXPECT_LT(brightness(i / 100.0), brightness((i + 1) / 100.0)) << i;
  EXPECT_EQ(viridis(-1), viridis(0));
  EXPECT_EQ(viridis(2), viridis(1));
}

TEST(HeatMap, DrawsEachValueAsASquare) {
  const Picture picture = small_picture();
  ASSERT_EQ(picture.width, 48);
  ASSERT_EQ(picture.height, 32);
  const auto at = [&](std::int64_t x, std::int64_t y) {
    const auto i = static_cast<std::size_t>((y * picture.width + x) * 3);
    return std::array<std::uint8_t, 3>{picture.pixels[i], picture.pixels[i + 1], picture.pixels[i + 2]};
  };
  EXPECT_EQ(at(0, 0), viridis(0));
  EXPECT_EQ(at(31, 15), viridis(1.0 / 3));
  EXPECT_EQ(at(32, 0), viridis(2.0 / 3));
  EXPECT_EQ(at(0, 16), viridis(1));
  EXPECT_EQ(at(16, 16), (std::array<std::uint8_t, 3>{128, 128, 128}));
  EXPECT_EQ(at(47, 31), viridis(1));
}

}  // namespace
}  // namespace conclave
