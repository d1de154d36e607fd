#include "framework/store/shard.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <sstream>

#include "framework/base/error.h"
#include "framework/store/manifest.h"

namespace conclave {
namespace {

constexpr const char* table_title = "conclave checkpoint shard: xxh3_64, first byte, bytes, tensor\n";

constexpr std::size_t most_dims = 32;  // of a dataset, in HDF5

std::string table_line(const std::string& checksum, std::size_t offset, std::size_t bytes,
                       const std::string& name) {
  char numbers[64];
  std::snprintf(numbers, sizeof numbers, "%16s %15zu %15zu ", checksum.c_str(), offset, bytes);
  return numbers + name + "\n";
}

std::string own_checksum_line(const std::string& lines) {
  return checksum_text(lines.data(), lines.size()) + " of the lines above\n";
}

}  // namespace

std::int64_t Piece::elements() const {
  std::int64_t sum = 0;
  for (const Box& box : boxes) sum += element_count(box);
  return sum;
}

std::string to_text(const std::vector<Piece>& pieces) {
  std::ostringstream text;
  const auto numbers = [&](const Dims& values) {
    for (const std::int64_t value : values) text << " " << value;
  };
  for (const Piece& piece : pieces) {
    text << piece.name << " " << static_cast<int>(piece.type) << " " << piece.dims.size();
    numbers(piece.dims);
    text << " " << piece.boxes.size();
    for (const Box& box : piece.boxes) {
      numbers(box.start);
      numbers(box.size);
    }
    text << "\n";
  }
  return text.str();
}

std::vector<Piece> pieces_from_text(const std::string& text) {
  std::vector<Piece> pieces;
  std::istringstream words(text);
  for (Piece piece; words >> piece.name; pieces.push_back(std::move(piece)), piece = {}) {
    int type = 0;
    std::size_t dims = 0, boxes = 0;
    const auto read = [&](Dims& values) {
      values.resize(dims);
      for (std::int64_t& value : values) words >> value;
    };
    words >> type >> dims;
    check(words && dims <= most_dims, "pieces_from_text: ", piece.name, " has no dims or too many");
    read(piece.dims);
    words >> boxes;
    piece.type = static_cast<ElementType>(type);
    for (std::size_t i = 0; i < boxes && words; ++i) {
      Box box;
      read(box.start);
      read(box.size);
      piece.boxes.push_back(std::move(box));
    }
    check(static_cast<bool>(words), "pieces_from_text: the text ends in ", piece.name);
  }
  return pieces;
}

std::string shard_name(std::int64_t rank) {
  char name[32];
  std::snprintf(name, sizeof name, "rank-%05lld.h5", static_cast<long long>(rank));
  return name;
}

ShardImage::ShardImage(const std::vector<Piece>& pieces) {
  std::string table = table_title;
  for (const Piece& piece : pieces) {
    check(piece.name.find_first_of(" \n") == std::string::npos, "ShardImage: the name '", piece.name,
          "' has a space in it");
    table += table_line("", 0, 0, piece.name);
  }
  table += own_checksum_line(table);
  table_room_ = 512;
  while (table_room_ < table.size()) table_room_ *= 2;  // what HDF5 looks for its own beginning behind

  Hdf5File file("checkpoint shard", Hdf5File::Mode::memory, table_room_);
  for (const Piece& piece : pieces) {
    const std::size_t bytes = static_cast<std::size_t>(piece.elements()) * element_bytes(piece.type);
    places_.push_back(
        {piece.name, bytes > 0 ? file.reserve(piece.name, piece.type, {piece.elements()}) : 0, bytes});
  }
  image_ = file.take_image();
  for (const Place& place : places_)
    check(place.offset + place.bytes <= image_.bytes().size(), "ShardImage: ", place.name,
          " ends beyond the file");
}

void* ShardImage::data(std::size_t piece) {
  const Place& place = places_.at(piece);
  return place.bytes > 0 ? image_.bytes().data() + place.offset : nullptr;
}

void ShardImage::seal() {
  std::string table = table_title;
  for (const Place& place : places_)
    table += table_line(checksum_text(image_.bytes().data() + place.offset, place.bytes), place.offset,
                        place.bytes, place.name);
  table += own_checksum_line(table);
  std::memset(image_.bytes().data(), '\n', table_room_);
  std::memcpy(image_.bytes().data(), table.data(), table.size());
}

std::string damaged_pieces(const std::filesystem::path& shard) {
  std::ifstream file(shard, std::ios::binary);
  std::string lines, line;
  std::getline(file, line);
  if (line + "\n" != table_title) return "";
  lines = line + "\n";
  struct Entry {
    std::string checksum, name;
    std::size_t offset = 0, bytes = 0;
  };
  std::vector<Entry> entries;
  while (std::getline(file, line) && line.find(" of the lines above") == std::string::npos) {
    lines += line + "\n";
    Entry entry;
    std::istringstream(line) >> entry.checksum >> entry.offset >> entry.bytes >> entry.name;
    entries.push_back(entry);
  }
  if (line + "\n" != own_checksum_line(lines)) return "";
  std::string clauses;
  std::size_t damaged = 0;
  const auto add = [&](const std::string& clause) {
    if (++damaged <= 3) clauses += (clauses.empty() ? "" : ", ") + clause;
  };
  std::vector<char> block(std::size_t{1} << 20);  // whatever sizes the table names
  for (const Entry& entry : entries) {
    file.clear();
    file.seekg(static_cast<std::streamoff>(entry.offset));
    Checksum checksum;
    std::size_t there = 0;
    while (there < entry.bytes && file.good()) {
      file.read(block.data(), static_cast<std::streamsize>(std::min(block.size(), entry.bytes - there)));
      const auto read = static_cast<std::size_t>(file.gcount());
      checksum.add(block.data(), read);
      there += read;
    }
    if (there < entry.bytes) {
      add(join_text(entry.name, " has ", there, " of its ", entry.bytes, " bytes"));
      continue;
    }
    if (const std::string found = checksum.text(); found != entry.checksum)
      add(join_text(entry.name, " has checksum ", found, ", expected ", entry.checksum));
  }
  return damaged > 3 ? join_text(clauses, " and ", damaged - 3, " more are damaged") : clauses;
}

FileImage compose_index(const std::vector<std::vector<Piece>>& pieces_of_ranks,
                        const Attributes& attributes) {
  struct Whole {
    const Piece* first = nullptr;
    std::int64_t elements = 0;
    std::vector<VirtualPart> parts;
  };
  std::map<std::string, Whole> tensors;
  for (std::size_t rank = 0; rank < pieces_of_ranks.size(); ++rank) {
    const std::string file = shard_name(static_cast<std::int64_t>(rank));
    for (const Piece& piece : pieces_of_ranks[rank]) {
      Whole& whole = tensors[piece.name];
      if (whole.first == nullptr) whole.first = &piece;
      check(whole.first->dims == piece.dims && whole.first->type == piece.type, "compose_index: ", piece.name,
            " is ", dims_text(whole.first->dims), " on one rank and ", dims_text(piece.dims), " on rank ",
            rank);
      const std::int64_t elements = piece.elements();
      std::int64_t first = 0;
      for (const Box& box : piece.boxes) {
        const std::int64_t count = element_count(box);
        whole.parts.push_back({file, piece.name, {elements}, {{first}, {count}}, box});
        first += count;
      }
      whole.elements += elements;
    }
  }
  Hdf5File file("checkpoint index", Hdf5File::Mode::memory);
  for (const auto& [key, value] : attributes)
    std::visit([&, &name = key](const auto& typed) { file.set_attribute("/", name, typed); }, value);
  for (const auto& [name, whole] : tensors) {
    const std::int64_t expected = element_count(whole.first->dims);
    check(whole.elements == expected || whole.parts.empty(), "compose_index: the ranks write ",
          whole.elements, " elements of ", name, ", which has ", expected);
    file.write_virtual(name, whole.first->type, whole.first->dims, whole.parts);
  }
  return file.take_image();
}

}  // namespace conclave
