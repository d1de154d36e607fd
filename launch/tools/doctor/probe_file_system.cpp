// The probe of a directory for runs: everything that a run does there is done once.
#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <functional>
#include <system_error>

#include "framework/base/error.h"
#include "framework/store/durable_file.h"
#include "framework/store/hdf5_file.h"
#include "launch/tools/doctor/probes.h"

namespace conclave {
namespace {

using std::filesystem::path;

struct FileSystemType {
  long magic;
  const char* name;
};
/// linux/magic.h, and for those that are not there the sources of their drivers.
constexpr FileSystemType types[] = {
    {0xEF53, "ext4"},        {0x58465342, "XFS"},    {0x9123683E, "Btrfs"}, {0x2FC12FC1, "ZFS"},
    {0x794C7630, "overlay"}, {0x01021994, "tmpfs"},  {0x6969, "NFS"},       {0x0BD00BD0, "Lustre"},
    {0x47504653, "GPFS"},    {0x19830326, "BeeGFS"}, {0x65735546, "FUSE"},  {0xFF534D42, "CIFS"},
    {0x00C36400, "Ceph"},    {0x01021997, "9p"},
};

std::string type_of(const path& directory) {
  struct statfs place {};
  if (::statfs(directory.c_str(), &place) != 0) return "unknown";
  // The field's type differs between machines; magic numbers have 32 bits.
  const auto magic = static_cast<long>(static_cast<std::uint32_t>(place.f_type));
  for (const FileSystemType& type : types)
    if (type.magic == magic) return type.name;
  char text[48];
  std::snprintf(text, sizeof text, "a type without a name here (0x%lx)", magic);
  return text;
}

/// A folder of its own that is gone afterwards.
class ScratchFolder {
 public:
  explicit ScratchFolder(const path& directory)
      : path_(directory / (".conclave-doctor-" + std::to_string(::getpid()))) {
    make_directories(path_);
  }
  ~ScratchFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;
  const path& get() const { return path_; }

 private:
  path path_;
};

/// A file that is closed again.
struct OpenFile {
  int number;
  explicit OpenFile(const path& file) : number(::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666)) {}
  ~OpenFile() {
    if (number >= 0) ::close(number);
  }
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;
};

/// 32 MiB, synced: bytes per second.
double write_rate(const path& folder) {
  const std::string block(std::size_t{1} << 20, 'x');
  constexpr int blocks = 32;
  const auto begin = std::chrono::steady_clock::now();
  DurableFile file(folder / "written");
  for (int i = 0; i < blocks; ++i) file.write(block.data(), block.size());
  file.sync();
  return blocks * static_cast<double>(block.size()) /
         std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

std::string content_of(const path& file) {
  std::ifstream stream(file);
  return {std::istreambuf_iterator<char>(stream), {}};
}

/// A directory replaced by another, as checkpoints are published.
void replace_directory(const path& folder) {
  const path target = folder / "published";
  for (const char* content : {"first", "second"}) {
    make_directories(partial_path(target));
    write_text_durably(partial_path(target) / "content", content);
    publish(partial_path(target), target);
    check(content_of(target / "content") == content, Fault::machine,
          "after a rename the old content is there");
  }
}

/// A second lock on a locked file must be refused, or two runs could write into one directory.
void lock_file(const path& folder) {
  const OpenFile first(folder / "lock"), second(folder / "lock");
  const bool locked = ::flock(first.number, LOCK_EX | LOCK_NB) == 0;
  const int reason = errno;
  check(locked, Fault::machine, "a file cannot be locked (", std::strerror(reason), ")");
  check(::flock(second.number, LOCK_EX | LOCK_NB) != 0, Fault::machine, "a locked file can be locked again");
}

/// What one map of a file is told, another one must see: ranks keep their journals so.
void share_map(const path& folder) {
  constexpr std::size_t bytes = 4096;
  const OpenFile file(folder / "map");
  const bool sized = ::ftruncate(file.number, bytes) == 0;
  check(sized, Fault::machine, "a file cannot be made larger");
  void* const one = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file.number, 0);
  void* const other = ::mmap(nullptr, bytes, PROT_READ, MAP_SHARED, file.number, 0);
  const bool mapped = one != MAP_FAILED && other != MAP_FAILED;
  if (mapped) static_cast<char*>(one)[100] = 'x';
  const bool seen = mapped && static_cast<volatile const char*>(other)[100] == 'x';
  if (one != MAP_FAILED) ::munmap(one, bytes);
  if (other != MAP_FAILED) ::munmap(other, bytes);
  check(seen, Fault::machine, "a file cannot be mapped into memory and shared");
}

void write_hdf5(const path& folder) {
  const std::int64_t written = 42;
  std::int64_t read = 0;
  Hdf5File file(folder / "numbers.h5", Hdf5File::Mode::create);
  file.write("number", ElementType::int64, {1}, &written);
  file.close();
  Hdf5File(folder / "numbers.h5", Hdf5File::Mode::read).read("number", ElementType::int64, {1}, &read);
  check(read == written, Fault::machine, "HDF5 reads another number than it has written");
}

}  // namespace

Section examine_file_system(const path& directory) {
  Section section{"File system of " + directory.string()};
  const std::string type = type_of(directory);
  struct statvfs place {};
  const bool known = ::statvfs(directory.c_str(), &place) == 0;
  const double free = known ? static_cast<double>(place.f_bavail) * static_cast<double>(place.f_frsize) : 0;
  char text[160];
  std::snprintf(text, sizeof text, "%s with %.1f GB free", type.c_str(), free / 1e9);
  if (known && free < 1e9)
    section.problem(text, "a checkpoint of a small model takes some of that; make room, or run elsewhere");
  else
    section.ok(text);
  if (type == "tmpfs")
    section.note("it is memory, and gone when the machine restarts", "keep runs on a disk");
  if (type == "overlay")
    section.note("it belongs to a container, and goes with it", "mount a volume, and keep runs there");
  if (type == "NFS" || type == "CIFS")
    section.note("other machines may see changes here seconds later",
                 "where there is a parallel file system for runs (scratch, work), use that");

  struct Trial {
    const char* works;
    const char* fails;
    std::function<void(const path&)> run;
    const char* advice;
  };
  const char* const elsewhere = "runs cannot live here: choose another place with output=DIRECTORY";
  const Trial trials[] = {
      {"directories are replaced as a whole, as checkpoints need", "directories cannot be replaced",
       replace_directory, elsewhere},
      {"files are locked, so that one run at a time writes into a directory", "locks do not work", lock_file,
       "nothing will keep two runs out of one directory here; mount it with locks (NFS: local_lock=none; "
       "Lustre: -o flock)"},
      {"files are mapped and shared, as the ranks' journals need", "maps do not work", share_map, elsewhere},
      {"HDF5 writes and reads", "HDF5 does not work", write_hdf5,
       "where it is about locks: export HDF5_USE_FILE_LOCKING=FALSE"},
  };
  try {
    const ScratchFolder folder(directory);
    std::snprintf(text, sizeof text, "writes %.0f MB/s, until it is on the disk",
                  write_rate(folder.get()) / 1e6);
    section.ok(text);
    for (const Trial& trial : trials) {
      try {
        trial.run(folder.get());
        section.ok(trial.works);
      } catch (const Error& error) {
        section.problem(std::string(trial.fails) + ": " + error.what(), trial.advice);
      }
    }
  } catch (const Error& error) {
    section.problem(std::string("it cannot be written: ") + error.what(), elsewhere);
  }
  return section;
}

}  // namespace conclave
