// Durable files: a file published under its final name survives a killed process and a lost power supply.
// Nothing half-written ever carries a final name. The order is always the same: write under a temporary name,
// fsync the file, rename, fsync the directory. A refusal of the file system is a Fault::machine.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace conclave {

/// The temporary name under which something is written before it is published: PATH.partial.
std::filesystem::path partial_path(const std::filesystem::path& path);

/// Creates the directory and its parents where they are missing.
void make_directories(const std::filesystem::path& directory);

/// Waits until the content of a file, or the names in a directory, are on the disk.
void sync_to_disk(const std::filesystem::path& path);

/// Where the old directory stands while replace_by_two_renames is at work: PATH.replaced.
std::filesystem::path replaced_path(const std::filesystem::path& path);

/// Renames partial to path and makes the name durable. A file at path is replaced, and so is a directory with
/// all that is in it. At no moment is there nothing or a mixture.
void publish(const std::filesystem::path& partial, const std::filesystem::path& path);

/// This is how publish replaces a directory where the file system cannot exchange two names in one step. The
/// old directory steps aside first. A process killed between the two renames leaves it whole at
/// replaced_path, where newest_checkpoint finds it.
void replace_by_two_renames(const std::filesystem::path& partial, const std::filesystem::path& path);

/// A new file; an existing one is replaced.
class DurableFile {
 public:
  explicit DurableFile(const std::filesystem::path& path);
  ~DurableFile();  // closes; what was not synced may be lost
  DurableFile(const DurableFile&) = delete;
  DurableFile& operator=(const DurableFile&) = delete;
  /// Writes all of it: goes on after an interruption and after a short write.
  void write(const void* data, std::size_t bytes);
  /// The next write begins this many bytes from the file's start.
  void seek(std::size_t offset);
  /// Hints that the disk may begin with what has been written, without waiting for it.
  void begin_sync();
  void sync();

 private:
  std::filesystem::path path_;
  int file_;
};

/// Writes a whole text file durably: partial_path, fsync, publish.
void write_text_durably(const std::filesystem::path& path, std::string_view text);

/// Refuses early, with both numbers in the sentence, when the file system holds less than this many free
/// bytes.
void check_free_space(const std::filesystem::path& directory, std::size_t bytes);

}  // namespace conclave
