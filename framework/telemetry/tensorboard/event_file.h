// EventFile writes scalars, histograms and pictures by step in the form that TensorBoard opens. A record has
// four parts, all little-endian:
//   the payload's length (uint64), a masked CRC32C of the length,
//   the payload, which is an `Event` of event.proto, a masked CRC32C of the payload
// Each record is whole in the file once write() returns.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "framework/telemetry/tensorboard/picture.h"

namespace conclave {

/// The values of one step, by tag. TensorBoard groups tags by the part before their first slash.
struct EventValues {
  std::vector<std::pair<std::string, double>> scalars;                  // kept as float32
  std::vector<std::pair<std::string, std::vector<double>>> histograms;  // of these values, finite ones
  std::vector<std::pair<std::string, Picture>> pictures;
  bool empty() const { return scalars.empty() && histograms.empty() && pictures.empty(); }
};

/// The checksum of a record's part: CRC32C (Castagnoli), rotated right by 15 bits, plus 0xa282ead8. So a
/// checksum of data that hold checksums stays a good one (tensorflow/core/lib/hash/crc32c.h).
std::uint32_t masked_crc32c(std::string_view bytes);

class EventFile {
 public:
  /// Begins a new file in the directory, events.out.tfevents.SECONDS.HOST.PROCESS. Its seconds are later than
  /// those of the files there, since TensorBoard reads files in the order of their names. Without a resumed
  /// step the files there are an earlier run's and are removed. With one, the new file begins with a mark
  /// that makes TensorBoard forget what it has read of later steps. Fault::request where nothing can be
  /// written.
  explicit EventFile(const std::filesystem::path& directory,
                     std::optional<std::int64_t> resumed_step = std::nullopt);
  ~EventFile();
  EventFile(const EventFile&) = delete;
  EventFile& operator=(const EventFile&) = delete;

  /// Fault::machine where the disk refuses it.
  void write(std::int64_t step, const EventValues& values);

  const std::filesystem::path& path() const { return path_; }

 private:
  void append_record(const std::string& payload);

  std::filesystem::path path_;
  int file_ = -1;
};

}  // namespace conclave
