// Event files read without the code that writes them: records by their definition, CRC32C bit by bit,
// protobuf's wire format by hand, and TensorFlow's published field numbers.
#pragma once

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace conclave {

/// The fields of one protobuf message by number; varints and fixed numbers as bits, the rest as bytes.
struct WireMessage {
  std::map<int, std::vector<std::uint64_t>> bits;
  std::map<int, std::vector<std::string>> bytes;

  explicit WireMessage(std::string_view data) {
    const auto take = [&data](std::size_t size) {
      if (size > data.size()) throw std::runtime_error("a field is longer than its message");
      const std::string_view part = data.substr(0, size);
      data.remove_prefix(size);
      return part;
    };
    const auto varint = [&] {
      std::uint64_t value = 0;
      for (int shift = 0;; shift += 7) {
        const auto byte = static_cast<unsigned char>(take(1)[0]);
        value |= static_cast<std::uint64_t>(byte & 0x7f) << shift;
        if (byte < 0x80) return value;
      }
    };
    const auto fixed = [&](std::size_t size) {
      std::uint64_t value = 0;
      std::memcpy(&value, take(size).data(), size);
      return value;
    };
    while (!data.empty()) {
      const std::uint64_t key = varint();
      const int number = static_cast<int>(key >> 3), type = static_cast<int>(key & 7);
      if (type == 0) {
        bits[number].push_back(varint());
      } else if (type == 1) {
        bits[number].push_back(fixed(8));
      } else if (type == 2) {
        const std::size_t size = varint();
        bytes[number].emplace_back(take(size));
      } else if (type == 5) {
        bits[number].push_back(fixed(4));
      } else {
        throw std::runtime_error("an unknown wire type");
      }
    }
  }

  std::int64_t integer(int number) const {
    const auto found = bits.find(number);
    return found == bits.end() ? 0 : static_cast<std::int64_t>(found->second.at(0));
  }
  double real(int number) const {
    double value = 0;
    if (const auto found = bits.find(number); found != bits.end())
      std::memcpy(&value, &found->second.at(0), sizeof value);
    return value;
  }
  std::string text(int number) const {
    const auto found = bytes.find(number);
    return found == bytes.end() ? "" : found->second.at(0);
  }
  bool has(int number) const { return bits.contains(number) || bytes.contains(number); }
};

/// Doubles of a packed field.
inline std::vector<double> packed_doubles(const std::string& bytes) {
  std::vector<double> values(bytes.size() / sizeof(double));
  std::memcpy(values.data(), bytes.data(), values.size() * sizeof(double));
  return values;
}

struct ReadEvent {
  double wall_time = 0;
  std::int64_t step = 0;
  std::string version;    // file_version
  bool is_start = false;  // session_log START
  std::map<std::string, float> scalars;
  std::map<std::string, WireMessage> histograms, pictures;
};

inline std::uint32_t plain_crc32c(std::string_view bytes) {
  std::uint32_t crc = 0xffffffffu;
  for (const char byte : bytes) {
    crc ^= static_cast<unsigned char>(byte);
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ ((crc & 1) != 0 ? 0x82f63b78u : 0u);
  }
  return ~crc;
}

/// The payloads of a file's records; throws where a length or a checksum is wrong.
inline std::vector<std::string> read_records(const std::string& file) {
  const auto number = [&file](std::size_t at, std::size_t size) {
    if (at + size > file.size()) throw std::runtime_error("the file ends inside of a record");
    std::uint64_t value = 0;
    for (std::size_t i = 0; i < size; ++i)
      value |= static_cast<std::uint64_t>(static_cast<unsigned char>(file[at + i])) << (8 * i);
    return value;
  };
  const auto check_sum = [&](std::size_t at, std::size_t size) {
    const std::uint32_t crc = plain_crc32c(std::string_view(file).substr(at, size));
    const std::uint32_t masked = (crc >> 15 | crc << 17) + 0xa282ead8u;
    if (number(at + size, 4) != masked) throw std::runtime_error("a checksum is wrong");
  };
  std::vector<std::string> records;
  for (std::size_t at = 0; at < file.size();) {
    const std::size_t size = number(at, 8);
    check_sum(at, 8);
    if (size > file.size() - at) throw std::runtime_error("a record is longer than the file");
    check_sum(at + 12, size);
    records.push_back(file.substr(at + 12, size));
    at += 12 + size + 4;
  }
  return records;
}

inline ReadEvent to_event(const std::string& record) {
  const WireMessage message(record);
  ReadEvent event;
  event.wall_time = message.real(1);
  event.step = message.integer(2);
  event.version = message.text(3);
  event.is_start = message.has(7) && WireMessage(message.text(7)).integer(1) == 1;
  if (!message.has(5)) return event;
  const WireMessage summary(message.text(5));
  for (const std::string& bytes : summary.bytes.at(1)) {
    const WireMessage value(bytes);
    const std::string tag = value.text(1);
    if (value.has(2)) {
      float number = 0;
      const auto bits = static_cast<std::uint32_t>(value.bits.at(2).at(0));
      std::memcpy(&number, &bits, sizeof number);
      event.scalars[tag] = number;
    }
    if (value.has(4)) event.pictures.emplace(tag, value.text(4));
    if (value.has(5)) event.histograms.emplace(tag, value.text(5));
  }
  return event;
}

}  // namespace conclave
