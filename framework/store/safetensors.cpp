#include "framework/store/safetensors.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "framework/base/bfloat16.h"
#include "framework/base/error.h"
#include "framework/store/json_text.h"

namespace conclave {
namespace {

using Json = nlohmann::json;

constexpr std::uint64_t longest_header = 100'000'000;  // the format's own bound
constexpr const char* metadata_name = "__metadata__";

/// Bytes of an element; 0 for a type that nobody has heard of.
std::uint64_t bytes_of_type(const std::string& dtype) {
  static const std::map<std::string, std::uint64_t> sizes = {
      {"F64", 8}, {"I64", 8}, {"U64", 8},     {"F32", 4},     {"I32", 4}, {"U32", 4}, {"F16", 2}, {"BF16", 2},
      {"I16", 2}, {"U16", 2}, {"F8_E4M3", 1}, {"F8_E5M2", 1}, {"I8", 1},  {"U8", 1},  {"BOOL", 1}};
  const auto found = sizes.find(dtype);
  return found == sizes.end() ? 0 : found->second;
}

/// Parses JSON that has no key twice; nlohmann's errors and ours are std::exceptions with a reason.
Json parse_without_duplicates(std::string_view text) {
  std::vector<std::set<std::string>> keys;  // of the objects that are open
  return Json::parse(text, [&](int, Json::parse_event_t event, Json& value) {
    if (event == Json::parse_event_t::object_start) keys.emplace_back();
    if (event == Json::parse_event_t::object_end) keys.pop_back();
    if (event == Json::parse_event_t::key && !keys.back().insert(value.get<std::string>()).second)
      throw std::invalid_argument("the key " + text_of(value) + " is there twice");
    return true;
  });
}

SafeTensor parse_tensor(const std::string& name, const Json& entry, std::uint64_t data_bytes,
                        const std::string& file) {
  const auto wrong = [&](const auto&... parts) {
    fail(Fault::data, file, ": the tensor ", text_of(name), " ", parts...,
         ". The file was cut short, is damaged or of another format.");
  };
  const auto whole = [&](const Json& value) {
    if (!value.is_number_unsigned()) wrong("has ", text_of(value), " where a whole number is expected");
    return value.get<std::uint64_t>();
  };
  if (!entry.is_object() || !entry.contains("dtype") || !entry.contains("shape") ||
      !entry.contains("data_offsets") || !entry["dtype"].is_string() || !entry["shape"].is_array() ||
      !entry["data_offsets"].is_array() || entry["data_offsets"].size() != 2)
    wrong("has no dtype, shape and data_offsets [begin, end]");
  SafeTensor tensor{name,
                    entry["dtype"].get<std::string>(),
                    {},
                    whole(entry["data_offsets"][0]),
                    whole(entry["data_offsets"][1])};
  std::uint64_t bytes = bytes_of_type(tensor.dtype);
  if (bytes == 0) wrong("is of the unknown type ", text_of(tensor.dtype));
  if (entry["shape"].size() > 32) wrong("has ", entry["shape"].size(), " dims");
  for (const Json& dim : entry["shape"]) {
    const std::uint64_t size = whole(dim);
    if (size > (std::uint64_t{1} << 62) || __builtin_mul_overflow(bytes, size, &bytes))
      wrong("has more elements than 64 bits can count");
    tensor.shape.push_back(static_cast<std::int64_t>(size));
  }
  if (tensor.begin > tensor.end || tensor.end > data_bytes)
    wrong("lies at bytes ", tensor.begin, " to ", tensor.end, " of ", data_bytes);
  if (tensor.end - tensor.begin != bytes)
    wrong("of type ", tensor.dtype, " and shape ", dims_text(tensor.shape), " takes ", bytes,
          " bytes, but has ", tensor.end - tensor.begin);
  return tensor;
}

std::string safe_text(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

float half_to_float(std::uint16_t half) {
  const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000u) << 16;
  const std::uint32_t exponent = half >> 10 & 0x1Fu, fraction = half & 0x3FFu;
  if (exponent == 0) {  // zero, or a subnormal: fraction * 2^-24
    const float value = static_cast<float>(fraction) * 0x1.0p-24f;
    return sign ? -value : value;
  }
  const std::uint32_t wide = exponent == 31 ? 0xFFu : exponent + 112;
  return std::bit_cast<float>(sign | wide << 23 | fraction << 13);
}

template <class Stored, class T, class Convert>
void widen(const char* bytes, std::size_t count, T* values, Convert&& convert) {
  for (std::size_t i = 0; i < count; ++i) {
    Stored stored;
    std::memcpy(&stored, bytes + i * sizeof stored, sizeof stored);
    values[i] = static_cast<T>(convert(stored));
  }
}

}  // namespace

std::vector<SafeTensor> parse_safetensors_header(std::string_view header, std::uint64_t data_bytes,
                                                 const std::string& file) {
  Json object;
  try {
    object = parse_without_duplicates(header);
  } catch (const std::exception& error) {
    fail(Fault::data, file, ": its header is not that of a safetensors file: ", error.what(), ".");
  }
  check(object.is_object(), Fault::data, file,
        ": its header is not that of a safetensors file: an object is expected.");
  std::vector<SafeTensor> tensors;
  for (const auto& [name, entry] : object.items())
    if (name != metadata_name) tensors.push_back(parse_tensor(name, entry, data_bytes, file));
  std::sort(tensors.begin(), tensors.end(), [](const SafeTensor& a, const SafeTensor& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  std::uint64_t end = 0;
  for (const SafeTensor& tensor : tensors) {
    check(tensor.begin == end, Fault::data, file, ": the tensor ", safe_text(tensor.name), " begins at byte ",
          tensor.begin, ", expected ", end, ", where the one before it ends. The file is damaged.");
    end = tensor.end;
  }
  check(end == data_bytes, Fault::data, file, ": its tensors take ", end, " bytes, but ", data_bytes,
        " follow the header. The file was cut short or is damaged.");
  return tensors;
}

SafetensorsReader::SafetensorsReader(const std::filesystem::path& path)
    : path_(path), file_(path, std::ios::binary) {
  check(file_.good(), Fault::data, "Cannot open ", path.string(), ". Check that it exists and is readable.");
  std::error_code code;
  const std::uintmax_t size = std::filesystem::file_size(path, code);
  check(!code, Fault::data, "Cannot measure ", path.string(), ": ", code.message(), ".");
  std::uint64_t length = 0;
  file_.read(reinterpret_cast<char*>(&length), sizeof length);
  check(file_.good() && length <= longest_header && length <= size - sizeof length, Fault::data,
        path.string(), ": its header would have ", length, " bytes in a file of ", size,
        ". It is no safetensors file, or was cut short.");
  std::string header(length, '\0');
  file_.read(header.data(), static_cast<std::streamsize>(length));
  check(file_.good(), Fault::data, "Reading ", path.string(), " failed: the disk may be damaged.");
  data_ = sizeof length + length;
  tensors_ = parse_safetensors_header(header, size - data_, path.string());
}

template <class T>
void SafetensorsReader::read(const SafeTensor& tensor, std::int64_t first, std::int64_t elements,
                             T* values) const {
  const std::size_t element = bytes_of_type(tensor.dtype);
  const std::uint64_t begin = tensor.begin + static_cast<std::uint64_t>(first) * element,
                      end = begin + static_cast<std::uint64_t>(elements) * element;
  check(first >= 0 && elements >= 0 && end <= tensor.end, "SafetensorsReader: elements ", first, " to ",
        first + elements, " of ", tensor.name, " are wanted, which has ", element_count(tensor.shape));
  std::vector<char> block(std::size_t{1} << 20);
  file_.clear();
  file_.seekg(static_cast<std::streamoff>(data_ + begin));
  for (std::uint64_t at = begin; at < end;) {
    const std::size_t bytes = std::min<std::uint64_t>(block.size(), end - at), count = bytes / element;
    file_.read(block.data(), static_cast<std::streamsize>(bytes));
    check(file_.good(), Fault::data, "Reading ", tensor.name, " of ", path_.string(),
          " failed: the disk may be damaged, or the file is being changed.");
    const auto same = [](auto value) { return value; };
    if (tensor.dtype == "F32")
      widen<float>(block.data(), count, values, same);
    else if (tensor.dtype == "F64")
      widen<double>(block.data(), count, values, same);
    else if (tensor.dtype == "BF16")
      widen<BFloat16>(block.data(), count, values, to_float);
    else if (tensor.dtype == "F16")
      widen<std::uint16_t>(block.data(), count, values, half_to_float);
    else
      fail(Fault::data, path_.string(), ": ", tensor.name, " is of type ", tensor.dtype,
           ", expected F32, BF16, F16 or F64. Quantised models cannot be read; take the original.");
    values += count;
    at += bytes;
  }
}

template void SafetensorsReader::read(const SafeTensor&, std::int64_t, std::int64_t, float*) const;
template void SafetensorsReader::read(const SafeTensor&, std::int64_t, std::int64_t, double*) const;

SafetensorsWriter::SafetensorsWriter(const std::filesystem::path& path,
                                     const std::vector<SafeTensorPlan>& tensors)
    : file_(path), tensors_(tensors) {
  // As text, entry by entry: an object that keeps its order would look through all keys for each new one.
  std::string text = R"({"__metadata__":{"format":"pt"})";
  std::set<std::string> names;
  std::uint64_t at = 0;
  for (const SafeTensorPlan& tensor : tensors) {
    const std::uint64_t end = at + tensor.bytes();
    check(names.insert(tensor.name).second, "SafetensorsWriter: ", tensor.name, " came twice");
    const nlohmann::ordered_json entry = {
        {"dtype", tensor.bfloat16 ? "BF16" : "F32"}, {"shape", tensor.shape}, {"data_offsets", {at, end}}};
    text += "," + Json(tensor.name).dump() + ":" + entry.dump();
    at = end;
  }
  text += "}";
  text.resize((text.size() + 7) / 8 * 8, ' ');
  check(text.size() <= longest_header, Fault::request, path.string(), ": ", tensors.size(),
        " tensors make a header of ", text.size(), " bytes, more than the format allows; write more shards.");
  const std::uint64_t length = text.size();
  file_.write(&length, sizeof length);
  file_.write(text.data(), text.size());
}

void SafetensorsWriter::write(const float* values, std::size_t count) {
  while (count > 0) {
    check(tensor_ < tensors_.size(), "SafetensorsWriter: more elements came than were planned");
    const SafeTensorPlan& tensor = tensors_[tensor_];
    const std::size_t all = static_cast<std::size_t>(element_count(tensor.shape)),
                      part = std::min(count, all - written_);
    if (tensor.bfloat16) {
      std::vector<BFloat16> rounded(part);
      std::transform(values, values + part, rounded.begin(), to_bfloat16);
      file_.write(rounded.data(), part * sizeof(BFloat16));
    } else {
      file_.write(values, part * sizeof(float));
    }
    values += part;
    count -= part;
    written_ += part;
    if (written_ == all) ++tensor_, written_ = 0;
  }
  file_.begin_sync();
}

void SafetensorsWriter::finish() {
  while (tensor_ < tensors_.size() && element_count(tensors_[tensor_].shape) == 0) ++tensor_;
  check(tensor_ == tensors_.size(), "SafetensorsWriter: ", tensors_.size() - tensor_,
        " tensors have not been written");
  file_.sync();
}

}  // namespace conclave
