// The parts of a checkpoint: its manifest, the table of a shard, and a whole one of which bytes, lengths or
// files are altered behind the manifest's back. And safetensors files.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <vector>

#include "framework/base/error.h"
#include "framework/store/checkpoint_directory.h"
#include "framework/store/checkpoint_file.h"
#include "framework/store/manifest.h"
#include "framework/store/safetensors.h"
#include "framework/store/shard.h"
#include "tests/fuzz/entries.h"

namespace conclave::fuzz {
namespace {
namespace fs = std::filesystem;

/// True where the first byte of an input asks for a right checksum, without which nothing is parsed.
bool takes_signature(std::string_view& bytes) {
  const bool is_signed = (bytes.front() & 1) != 0;
  bytes.remove_prefix(1);
  return is_signed;
}

std::string content_of(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// A good checkpoint, made once, and what is in its files.
struct Original {
  fs::path path;
  std::vector<std::string> names;
  std::map<std::string, std::string> content;
  std::vector<float> weight;
};

const Original& original() {
  static const Original made = [] {
    Original checkpoint;
    for (int i = 0; i < 24; ++i) checkpoint.weight.push_back(0.5f * static_cast<float>(i));
    CheckpointWriter writer(fs::path(file_with("altered/made", "")).parent_path() / "checkpoints", 7);
    writer.add("model/weight", {4, 6}, checkpoint.weight.data());
    writer.add("optimizer/moment1/weight", {4, 6}, checkpoint.weight.data());
    writer.set("tokens", std::int64_t{40});
    checkpoint.path = writer.commit();
    for (const char* name : {index_name, "rank-00000.h5", manifest_name}) {
      checkpoint.names.emplace_back(name);
      checkpoint.content[name] = content_of(checkpoint.path / name);
    }
    return checkpoint;
  }();
  return made;
}

/// 5 bytes: which file and what to do with it, a place in it, a value, how often.
void alter(std::map<std::string, std::string>& content, const std::string& name, int kind, std::size_t place,
           unsigned char value, unsigned char times) {
  const auto found = content.find(name);
  if (found == content.end()) return;
  std::string& text = found->second;
  place = text.empty() ? 0 : place % text.size();
  if (kind == 0 && !text.empty()) text[place] = static_cast<char>(text[place] ^ value);
  if (kind == 1) text.resize(place);
  if (kind == 2) text.append(times, static_cast<char>(value));
  if (kind == 3) text.insert(place, times, static_cast<char>(value));
  if (kind == 4) text.erase(place, times);
  if (kind == 5) text.replace(place, times, std::min<std::size_t>(times, text.size() - place), '\0');
  if (kind == 6 && times == 255) content.erase(found);
}

}  // namespace

void run_manifest(std::string_view bytes) {
  if (bytes.empty()) return;
  const bool is_signed = takes_signature(bytes);
  std::string text(bytes);
  if (is_signed)
    text += "  \"checksum_of_the_lines_above\": \"" + checksum_text(text.data(), text.size()) + "\"\n}\n";
  file_with("manifest/rank-00000.h5", "shard");
  const fs::path directory = fs::path(file_with("manifest/manifest.json", text)).parent_path();
  value_or_error([&] {
    for (const FileEntry& file : read_manifest(directory)) {
      promise(fs::path(file.name).filename() == file.name && file.name != "..",
              "a name stays in the directory");
      value_or_error([&] { verify_file(directory, file, ManifestCheck::content); });
    }
    verify_manifest(directory, ManifestCheck::sizes);
  });
}

void run_shard_table(std::string_view bytes) {
  if (bytes.empty()) return;
  const bool is_signed = takes_signature(bytes);
  const std::size_t end = std::min(bytes.find('\0'), bytes.size());
  std::string text = "conclave checkpoint shard: xxh3_64, first byte, bytes, tensor\n";
  text += bytes.substr(0, end);
  if (is_signed) text += checksum_text(text.data(), text.size()) + " of the lines above\n";
  bytes.remove_prefix(end);
  const std::string clauses = damaged_pieces(file_with("shard.h5", text.append(bytes)));
  promise(clauses.size() <= text.size() + 1000, "a few clauses about a few datasets");
}

void run_checkpoint(std::string_view bytes) {
  const Original& good = original();
  auto content = good.content;
  for (; bytes.size() >= 5; bytes.remove_prefix(5)) {
    const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(bytes[i]); };
    alter(content, good.names[byte(0) % 3], byte(0) / 3 % 7, static_cast<std::size_t>(byte(1) << 8 | byte(2)),
          byte(3), byte(4));
  }
  for (const std::string& name : good.names) {
    const auto found = content.find(name);
    if (found == content.end())
      fs::remove(good.path / name);
    else
      std::ofstream(good.path / name, std::ios::binary) << found->second;
  }
  const bool is_whole = content == good.content;
  bool loaded = false;
  value_or_error([&] {
    const CheckpointReader reader(good.path);
    promise(reader.read_all<float>("model/weight") == good.weight, "what is read is what was written");
    promise(reader.integer("tokens") == 40 && reader.step() == 7, "and so are the attributes");
    loaded = true;
  });
  promise(loaded == is_whole, "a checkpoint is read when it is whole and refused when it is not");
  const FoundCheckpoint found = newest_checkpoint(good.path.parent_path());
  promise(found.path.has_value() == is_whole && found.rejected.size() == (is_whole ? 0 : 1),
          "an altered checkpoint is not chosen");
}

void run_safetensors(std::string_view bytes) {
  const std::string path = file_with("model.safetensors", bytes);
  value_or_error([&] {
    const SafetensorsReader reader(path);
    std::uint64_t end = 0;
    for (const SafeTensor& tensor : reader.tensors()) {
      promise(tensor.begin == end && tensor.end >= tensor.begin, "tensors lie side by side");
      end = tensor.end;
    }
    promise(end <= bytes.size(), "and inside the file");
    for (const SafeTensor& tensor : reader.tensors()) {
      // No type is smaller than a byte, so that what is announced is there.
      promise(static_cast<std::uint64_t>(element_count(tensor.shape)) <= bytes.size(), "elements have bytes");
      std::vector<float> values(static_cast<std::size_t>(element_count(tensor.shape)));
      value_or_error([&] { reader.read(tensor, values.data()); });
    }
  });
}

}  // namespace conclave::fuzz
