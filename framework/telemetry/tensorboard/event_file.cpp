#include "framework/telemetry/tensorboard/event_file.h"

#include <event.pb.h>
#include <fcntl.h>
#include <isa-l/crc.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>

#include "framework/base/error.h"
#include "framework/telemetry/terminal.h"

namespace conclave {
namespace {
namespace fs = std::filesystem;

constexpr std::string_view name_start = "events.out.tfevents.";

double wall_time() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

std::vector<fs::path> event_files(const fs::path& directory) {
  std::vector<fs::path> files;
  std::error_code code;
  for (const auto& entry : fs::directory_iterator(directory, code))
    if (entry.path().filename().string().starts_with(name_start)) files.push_back(entry.path());
  check(!code, Fault::request, "'", directory.string(), "' cannot be listed: ", code.message());
  return files;
}

std::int64_t seconds_of(const fs::path& file) {
  const std::string digits = file.filename().string().substr(name_start.size());
  std::int64_t seconds = 0;
  std::from_chars(digits.data(), digits.data() + digits.size(), seconds);
  return seconds;
}

std::string host_name() {
  std::array<char, 256> name{};
  if (::gethostname(name.data(), name.size() - 1) != 0) return "host";
  return name.data();
}

template <class Number>
void append_little_endian(std::string& record, Number number) {
  for (std::size_t byte = 0; byte < sizeof number; ++byte)
    record += static_cast<char>(number >> (8 * byte) & 0xff);
}

void fill(tensorboard::HistogramProto& histogram, const std::vector<double>& values) {
  const auto [least, most] = std::minmax_element(values.begin(), values.end());
  const bool spread = *least < *most;
  const std::size_t buckets = spread ? 30 : 1;  // as many as TensorBoard draws
  const double width = (*most - *least) / static_cast<double>(buckets);
  std::vector<double> counts(buckets);
  double sum = 0, squares = 0;
  for (const double value : values) {
    const auto bucket = spread ? static_cast<std::size_t>((value - *least) / width) : 0;
    counts[std::min(bucket, buckets - 1)] += 1;
    sum += value;
    squares += value * value;
  }
  histogram.set_min(*least);
  histogram.set_max(*most);
  histogram.set_num(static_cast<double>(values.size()));
  histogram.set_sum(sum);
  histogram.set_sum_squares(squares);
  for (std::size_t i = 0; i < buckets; ++i) {
    histogram.add_bucket_limit(i + 1 == buckets ? *most : *least + static_cast<double>(i + 1) * width);
    histogram.add_bucket(counts[i]);
  }
}

}  // namespace

std::uint32_t masked_crc32c(std::string_view bytes) {
  // iSCSI's checksum is CRC32C; the library leaves both inversions to the caller, and only reads the bytes.
  auto* data = reinterpret_cast<unsigned char*>(const_cast<char*>(bytes.data()));
  const std::uint32_t crc = ~::crc32_iscsi(data, static_cast<int>(bytes.size()), ~0u);
  return (crc >> 15 | crc << 17) + 0xa282ead8u;
}

EventFile::EventFile(const fs::path& directory, std::optional<std::int64_t> resumed_step) {
  std::error_code code;
  fs::create_directories(directory, code);
  check(!code, Fault::request, "'", directory.string(), "' cannot be made: ", code.message());
  auto seconds = static_cast<std::int64_t>(wall_time());
  for (const fs::path& file : event_files(directory)) {
    seconds = std::max(seconds, seconds_of(file) + 1);
    if (resumed_step) continue;
    fs::remove(file, code);
    check(!code, Fault::request, "'", file.string(),
          "' of an earlier run cannot be removed: ", code.message());
  }
  std::array<char, 32> digits;
  std::snprintf(digits.data(), digits.size(), "%010lld", static_cast<long long>(seconds));
  path_ = directory / join_text(name_start, digits.data(), ".", host_name(), ".", ::getpid());
  file_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0666);
  check(file_ >= 0, Fault::request, "'", path_.string(), "' cannot be written: ", std::strerror(errno));

  tensorboard::Event version;
  version.set_wall_time(wall_time());
  version.set_file_version("brain.Event:2");
  append_record(version.SerializeAsString());
  if (!resumed_step) return;
  tensorboard::Event start;
  start.set_wall_time(wall_time());
  start.set_step(*resumed_step + 1);  // this step and later ones will come again
  start.mutable_session_log()->set_status(tensorboard::SessionLog::START);
  append_record(start.SerializeAsString());
}

EventFile::~EventFile() {
  if (file_ >= 0) ::close(file_);
}

void EventFile::write(std::int64_t step, const EventValues& values) {
  if (values.empty()) return;
  tensorboard::Event event;
  event.set_wall_time(wall_time());
  event.set_step(step);
  tensorboard::Summary& summary = *event.mutable_summary();
  const auto add = [&summary](const std::string& tag) -> tensorboard::Summary::Value& {
    tensorboard::Summary::Value& value = *summary.add_value();
    value.set_tag(tag);
    return value;
  };
  for (const auto& [tag, number] : values.scalars) add(tag).set_simple_value(static_cast<float>(number));
  for (const auto& [tag, numbers] : values.histograms) {
    check(!numbers.empty() && std::all_of(numbers.begin(), numbers.end(),
                                          [](double number) { return std::isfinite(number); }),
          "EventFile::write: the histogram ", tag, " needs finite values, at least one");
    fill(*add(tag).mutable_histo(), numbers);
  }
  for (const auto& [tag, picture] : values.pictures) {
    tensorboard::Summary::Image& image = *add(tag).mutable_image();
    image.set_width(static_cast<std::int32_t>(picture.width));
    image.set_height(static_cast<std::int32_t>(picture.height));
    image.set_colorspace(3);
    image.set_encoded_image_string(to_png(picture));
  }
  append_record(event.SerializeAsString());
}

void EventFile::append_record(const std::string& payload) {
  std::string record;
  append_little_endian(record, static_cast<std::uint64_t>(payload.size()));
  append_little_endian(record, masked_crc32c(record));
  record += payload;
  append_little_endian(record, masked_crc32c(payload));
  const bool written = write_all(file_, record);  // before the arguments below read errno
  check(written, Fault::machine, "'", path_.string(), "' cannot be written: ", std::strerror(errno));
}

}  // namespace conclave
