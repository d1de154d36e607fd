// One class per format over its library's streaming calls. Each of them goes on with what follows the end of
// a member, frame or stream, as the programs gzip, zstd and xz do.
#include "framework/data/byte_stream.h"

#include <lzma.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "framework/base/error.h"
#include "framework/data/file_ending.h"
#include "framework/data/file_kind.h"
#include "framework/data/files.h"

namespace conclave {
namespace {

constexpr std::size_t part_bytes = std::size_t{1} << 18;
/// The memory that a file's header may ask for as its window: what `zstd --long=31` writes.
constexpr int largest_window_log = 31;

using namespace std::string_view_literals;

/// "UTF-16" or "UTF-32" where the text begins with their byte-order mark, or has a zero in most letters as
/// European text has in them; else "".
std::string wide_text(std::string_view bytes) {
  for (const std::string_view mark : {"\xFF\xFE\0\0"sv, "\0\0\xFE\xFF"sv})
    if (bytes.starts_with(mark)) return "UTF-32";
  for (const std::string_view mark : {"\xFF\xFE"sv, "\xFE\xFF"sv})
    if (bytes.starts_with(mark)) return "UTF-16";
  const std::size_t letters = std::min<std::size_t>(bytes.size(), 4096) / 4;
  std::array<std::size_t, 4> zeros{};  // by place in four bytes
  for (std::size_t i = 0; i < 4 * letters; ++i) zeros[i % 4] += bytes[i] == '\0';
  const auto many = [&](std::size_t place) { return 2 * zeros[place] > letters; };
  const auto few = [&](std::size_t place) { return 8 * zeros[place] < letters; };
  if (letters == 0) return "";
  if (many(1) && many(2) && many(3) && few(0)) return "UTF-32";
  if (many(0) && many(1) && many(2) && few(3)) return "UTF-32";
  if (many(1) && many(3) && few(0) && few(2)) return "UTF-16";
  return many(0) && many(2) && few(1) && few(3) ? "UTF-16" : "";
}

/// Refuses what has no reader here. A tar archive says so behind the name of its first member.
void refuse_others(std::string_view bytes, const std::string& path) {
  const std::string wide = wide_text(bytes);
  check(wide.empty(), Fault::data, "the input ", path, " is ", wide,
        " text, and UTF-8 is expected; convert it, for example with `iconv -f ", wide, " -t UTF-8`");
  constexpr std::size_t tar_magic_at = 257;
  const bool tar = bytes.size() > tar_magic_at && bytes.substr(tar_magic_at).starts_with("ustar");
  const std::string kind = tar ? "a tar archive" : kind_of_content(bytes);
  check(kind.empty(), Fault::data, "the input ", path, " is ", kind,
        "; text or JSON is expected, which gzip, zstd or xz may have compressed; unpack or convert it first");
}

class PlainStream final : public ByteStream {
 public:
  explicit PlainStream(MappedFile file) : file_(std::move(file)) {}
  std::string_view next() override {
    const std::string_view part = file_.bytes().substr(at_, part_bytes);
    at_ += part.size();
    return part;
  }
  std::int64_t bytes_used() const override { return static_cast<std::int64_t>(at_); }
  bool compressed() const override { return false; }

 private:
  MappedFile file_;
  std::size_t at_ = 0;
};

/// The part that the three formats share: input from the mapped file, output into one buffer.
class CompressedStream : public ByteStream {
 public:
  CompressedStream(MappedFile file, std::string path, const char* format)
      : file_(std::move(file)), path_(std::move(path)), format_(format), part_(part_bytes) {}
  std::int64_t bytes_used() const override { return static_cast<std::int64_t>(used_); }
  bool compressed() const override { return true; }

  std::string_view next() final {
    std::size_t made = 0;
    while (made == 0 && !(used_ == file_.bytes().size() && between_members_)) {
      const bool had_input = used_ < file_.bytes().size();
      made = unpack();
      check(made > 0 || had_input || between_members_, Fault::data, "the input ", path_, " ends after ",
            used_, " bytes in the middle of its ", format_,
            " data; it is truncated, as by a copy that was cut short");
    }
    const std::string_view part(part_.data(), made);
    if (!std::exchange(begun_, true)) refuse_others(part, path_);
    return part;
  }

 protected:
  /// Takes some input and gives how many bytes it made of it. Says when a member ends.
  virtual std::size_t unpack() = 0;
  std::string_view input() const { return file_.bytes().substr(used_); }
  void use(std::size_t bytes) { used_ += bytes; }
  [[noreturn]] void damaged(std::string_view reason) const {
    fail(Fault::data, "the input ", path_, " cannot be unpacked: its ", format_,
         " data are damaged near byte ", used_, " of the file (", reason, "); make or copy it again");
  }

  MappedFile file_;
  std::string path_;
  const char* format_;
  std::vector<char> part_;
  std::size_t used_ = 0;
  bool between_members_ = true, begun_ = false;
};

class GzipStream final : public CompressedStream {
 public:
  GzipStream(MappedFile file, std::string path) : CompressedStream(std::move(file), std::move(path), "gzip") {
    constexpr int gzip_alone = 16;
    check(inflateInit2(&state_, MAX_WBITS + gzip_alone) == Z_OK, Fault::machine, "zlib cannot begin to read ",
          path_);
  }
  GzipStream(const GzipStream&) = delete;
  GzipStream& operator=(const GzipStream&) = delete;
  ~GzipStream() override { inflateEnd(&state_); }

 private:
  std::size_t unpack() override {
    if (between_members_ && skip_padding()) return 0;
    const std::string_view from = input().substr(0, std::size_t{1} << 30);
    // zlib promises not to write where it reads from.
    state_.next_in = const_cast<Bytef*>(reinterpret_cast<const Bytef*>(from.data()));
    state_.avail_in = static_cast<uInt>(from.size());
    state_.next_out = reinterpret_cast<Bytef*>(part_.data());
    state_.avail_out = static_cast<uInt>(part_.size());
    between_members_ = false;
    const int status = inflate(&state_, Z_NO_FLUSH);
    use(from.size() - state_.avail_in);
    check(status != Z_MEM_ERROR, Fault::machine, "there is no memory left to unpack ", path_);
    if (status != Z_OK && status != Z_STREAM_END && status != Z_BUF_ERROR)
      damaged(state_.msg != nullptr ? state_.msg : "no reason given");
    const std::size_t made = part_.size() - state_.avail_out;
    if (status == Z_STREAM_END) {
      between_members_ = true;
      inflateReset(&state_);
    }
    return made;
  }

  /// Tapes and block devices leave zeros behind the last member.
  bool skip_padding() {
    const std::size_t zeros = std::min(input().find_first_not_of('\0'), input().size());
    if (used_ == 0 || zeros == 0) return false;
    use(zeros);
    return true;
  }

  z_stream state_{};
};

class ZstdStream final : public CompressedStream {
 public:
  ZstdStream(MappedFile file, std::string path)
      : CompressedStream(std::move(file), std::move(path), "Zstandard"), state_(ZSTD_createDCtx()) {
    check(state_ != nullptr, Fault::machine, "libzstd cannot begin to read ", path_);
    ZSTD_DCtx_setParameter(state_, ZSTD_d_windowLogMax, sizeof(void*) == 8 ? largest_window_log : 30);
  }
  ZstdStream(const ZstdStream&) = delete;
  ZstdStream& operator=(const ZstdStream&) = delete;
  ~ZstdStream() override { ZSTD_freeDCtx(state_); }

 private:
  std::size_t unpack() override {
    ZSTD_inBuffer from{input().data(), input().size(), 0};
    ZSTD_outBuffer to{part_.data(), part_.size(), 0};
    const std::size_t left = ZSTD_decompressStream(state_, &to, &from);
    use(from.pos);
    if (ZSTD_isError(left) != 0) damaged(ZSTD_getErrorName(left));
    between_members_ = left == 0;
    return to.pos;
  }

  ZSTD_DCtx* state_;
};

class XzStream final : public CompressedStream {
 public:
  XzStream(MappedFile file, std::string path) : CompressedStream(std::move(file), std::move(path), "xz") {
    constexpr std::uint64_t beside_window = std::uint64_t{1} << 20;  // the decoder's own tables
    check(lzma_stream_decoder(&state_, (std::uint64_t{1} << largest_window_log) + beside_window,
                              LZMA_CONCATENATED) == LZMA_OK,
          Fault::machine, "liblzma cannot begin to read ", path_);
    between_members_ = false;
  }
  XzStream(const XzStream&) = delete;
  XzStream& operator=(const XzStream&) = delete;
  ~XzStream() override { lzma_end(&state_); }

 private:
  std::size_t unpack() override {
    state_.next_in = reinterpret_cast<const std::uint8_t*>(input().data());
    state_.avail_in = input().size();
    state_.next_out = reinterpret_cast<std::uint8_t*>(part_.data());
    state_.avail_out = part_.size();
    const std::size_t before = state_.avail_in;
    const lzma_ret status = lzma_code(&state_, LZMA_FINISH);  // all of the file is there
    use(before - state_.avail_in);
    check(status != LZMA_MEM_ERROR, Fault::machine, "there is no memory left to unpack ", path_);
    if (status != LZMA_OK && status != LZMA_STREAM_END && status != LZMA_BUF_ERROR)
      damaged(status == LZMA_FORMAT_ERROR ? "what follows is no xz stream"
              : status == LZMA_MEMLIMIT_ERROR
                  ? "it asks for more than 2 GiB of memory, which no program writes"
              : status == LZMA_OPTIONS_ERROR ? "it has options that liblzma does not know"
                                             : "a checksum or a structure is wrong");
    between_members_ = status == LZMA_STREAM_END;
    return part_.size() - state_.avail_out;
  }

  lzma_stream state_ = LZMA_STREAM_INIT;
};

constexpr std::string_view gzip_begins = "\x1F\x8B"sv, zstd_begins = "\x28\xB5\x2F\xFD"sv,
                           xz_begins =
                               "\xFD"
                               "7zXZ\0"sv;

/// A frame that is skipped may stand before others.
bool begins_as_zstd(std::string_view bytes) {
  return bytes.starts_with(zstd_begins) ||
         (bytes.size() >= 4 && (bytes[0] & 0xF0) == 0x50 && bytes.substr(1, 3) == "\x2A\x4D\x18"sv);
}

}  // namespace

std::unique_ptr<ByteStream> open_byte_stream(const std::string& path) {
  MappedFile file(path, "the input");
  const std::string_view bytes = file.bytes();
  if (bytes.starts_with(gzip_begins)) return std::make_unique<GzipStream>(std::move(file), path);
  if (begins_as_zstd(bytes)) return std::make_unique<ZstdStream>(std::move(file), path);
  if (bytes.starts_with(xz_begins)) return std::make_unique<XzStream>(std::move(file), path);
  refuse_others(bytes, path);
  check(bytes.empty() || without_compression_ending(path).size() == path.size(), Fault::data, "the input ",
        path,
        " does not begin as a file of that ending does; rename it if it is not compressed, or make it again");
  return std::make_unique<PlainStream>(std::move(file));
}

bool is_compressed(const std::string& path) {
  return open_byte_stream(path)->compressed();
}

}  // namespace conclave
