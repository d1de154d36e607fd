#include "framework/data/file_kind.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <filesystem>

#include "framework/base/error.h"
#include "framework/data/file_ending.h"
#include "framework/data/files.h"
#include "framework/data/tokenizer.h"

namespace conclave {
namespace {

namespace filesystem = std::filesystem;
using namespace std::string_view_literals;

struct Beginning {
  std::string_view bytes;
  const char* kind;
};

constexpr std::array beginnings = {
    Beginning{"\x93NUMPY"sv, "a NumPy array"},
    Beginning{"MMIDIDX\0"sv, "the index of a token file"},
    Beginning{"TNTIDX\0"sv, "the index of an older kind of Megatron's token files"},
    Beginning{"PAR1", "a Parquet table"},
    Beginning{"ARROW1", "an Arrow table"},
    Beginning{"\x89HDF\r\n"sv, "an HDF5 file"},
    Beginning{"PK\x03\x04"sv, "a zip archive"},
    Beginning{"7z\xBC\xAF"sv, "a 7z archive"},
    Beginning{"BZh", "bzip2 data"},
    Beginning{"\x04\x22\x4D\x18"sv, "LZ4 data"},
    Beginning{"%PDF-", "a PDF document"}};

/// llm.c begins with 256 numbers of 32 bits: one that means GPT-2's or Llama 3's tokens, and a version.
bool is_of_llm_c(std::string_view bytes) {
  std::uint32_t number = 0;
  if (bytes.size() < 1024) return false;
  std::memcpy(&number, bytes.data(), sizeof number);
  return number == 20240520 || number == 20240801;
}

bool is_text(std::string_view bytes) {
  const std::string_view part = bytes.substr(0, 4096);
  const std::size_t bad = first_invalid_utf8(part);
  const bool cut = part.size() < bytes.size() && bad + 3 >= part.size();  // a character by the part's end
  return !part.empty() && part.find('\0') == std::string_view::npos && (bad == std::string_view::npos || cut);
}

std::string kind_of_tokens(const std::string& path, std::string_view bytes) {
  if (const std::string kind = kind_of_content(bytes); !kind.empty()) return kind;
  if (has_ending(path, ".ds")) return "a token file of datatrove (.ds)";
  if (without_compression_ending(path).size() < path.size()) return "a compressed file";
  if (is_text(bytes)) return "text";
  if (has_ending(path, ".bin")) return "a row of bare token ids without an index, as nanoGPT writes them";
  return "a file of a kind that Conclave does not know";
}

bool is_file(const std::string& path) {
  std::error_code code;
  return filesystem::is_regular_file(path, code);
}

/// Endings of tokens, tables and texts that other programs write, in the order in which one is likely meant.
constexpr std::array endings = {"",         ".bin",   ".ds",     ".npy",  ".npz", ".parquet", ".arrow",
                                ".feather", ".jsonl", ".ndjson", ".json", ".txt", ".text",    ".csv",
                                ".tsv",     ".h5",    ".hdf5",   ".pt",   ".zip", ".tar",     ".pdf"};
constexpr std::array packings = {"", ".gz", ".zst", ".zstd", ".xz", ".bz2", ".lz4"};

/// The file that was meant, or empty.
std::string file_of(const std::string& prefix) {
  for (const char* packing : packings)
    for (const char* ending : endings)
      if (is_file(prefix + ending + packing)) return prefix + ending + packing;
  return "";
}

}  // namespace

std::string kind_of_content(std::string_view bytes) {
  if (is_text(bytes)) return "";  // a text may begin with the letters PAR1
  for (const Beginning& beginning : beginnings)
    if (bytes.starts_with(beginning.bytes)) return beginning.kind;
  return is_of_llm_c(bytes) ? "a token file of llm.c" : "";
}

std::string how_to_make_tokens(const std::string& prefix) {
  const bool quickstart = std::string_view(prefix).find("data/quickstart/") != std::string_view::npos;
  return quickstart ? "`bash launch/prepare_quickstart_data.sh` makes the texts of the quickstart."
                    : "`conclave tokenize --output " + prefix + " TEXT` makes it of text.";
}

void refuse_foreign_tokens(const std::string& prefix) {
  for (const std::string ending : {".bin", ".idx", ".json"}) {
    const std::string pair = prefix.substr(0, prefix.size() - std::min(prefix.size(), ending.size()));
    check(!prefix.ends_with(ending) || !is_file(pair + ".bin") || !is_file(pair + ".idx"), Fault::request,
          "the token file ", prefix, " was given with its ending; leave it out: ", pair, " stands for ", pair,
          ".bin and ", pair, ".idx");
  }
  std::error_code code;
  check(!filesystem::is_directory(prefix, code), Fault::data, "the token file ", prefix,
        " is a folder; the common name of a pair PREFIX.bin and PREFIX.idx is expected, without an ending");
  const std::string path = file_of(prefix);
  if (path.empty()) return;
  const MappedFile file(path, "token file");
  const std::string kind = kind_of_tokens(path, file.bytes());
  const bool tokenizable = kind == "text" || kind == "a compressed file";
  fail(Fault::data, path, " is ", kind, "; a pair of token files PREFIX.bin and PREFIX.idx is expected, and ",
       prefix, ".idx is not there. ",
       tokenizable
           ? join_text("`conclave tokenize --output PREFIX ", path, "` makes one of text")
           : std::string("Make one of the text with `conclave tokenize --output PREFIX TEXT`, or of the "
                         "ids with Megatron-LM's IndexedDatasetBuilder"));
}

}  // namespace conclave
