// The file, its groups and its attributes; hdf5_dataset.cpp has the datasets.
#include "framework/store/hdf5_file.h"

#include <algorithm>
#include <cstdlib>
#include <type_traits>

#include "framework/store/hdf5_internal.h"

namespace conclave {
namespace {

static_assert(std::is_same_v<hid_t, std::int64_t>, "Hdf5File keeps an hid_t in an int64");

/// Once per process, before anything else of HDF5: it prints nothing, and it does not close handles at exit,
/// where those that a full disk left open would crash the process after its error was reported.
void start_library() {
  static const bool started = [] {
    H5dont_atexit();
    H5open();
    H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
    return true;
  }();
  static_cast<void>(started);
}

hid_t make_text_type() {  // variable length, UTF-8: no limit of 64 KB, and a plain str in h5py
  const hid_t type = H5Tcopy(H5T_C_S1);
  H5Tset_size(type, H5T_VARIABLE);
  H5Tset_cset(type, H5T_CSET_UTF8);
  return type;
}

}  // namespace

std::string hdf5_library() {
  start_library();
  unsigned major = 0, minor = 0, release = 0;
  H5get_libversion(&major, &minor, &release);
  return join_text("HDF5 ", major, ".", minor, ".", release);
}

FileImage& FileImage::operator=(FileImage&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

FileImage::~FileImage() {
  std::free(data_);
}

/// HDF5's driver for memory asks these for every byte, so that the finished file is taken over without a copy
/// and without a moment at which it exists twice.
struct Hdf5File::Memory {
  void* data = nullptr;
  std::size_t bytes = 0, room = 0;

  static void* allocate(std::size_t bytes, H5FD_file_image_op_t operation, void* self) {
    return grow(nullptr, bytes, operation, self);
  }
  static void* grow(void*, std::size_t bytes, H5FD_file_image_op_t, void* self) {
    Memory& memory = *static_cast<Memory*>(self);
    if (bytes > memory.room) {
      const std::size_t room = std::max(bytes, memory.room + memory.room / 2);
      void* data = std::realloc(memory.data, room);
      if (data == nullptr) return nullptr;
      memory.data = data;
      memory.room = room;
    }
    memory.bytes = bytes;
    return memory.data;
  }
  static herr_t release(void*, H5FD_file_image_op_t, void*) { return 0; }  // the image is still wanted
  static void* same(void* self) { return self; }
  static herr_t keep(void*) { return 0; }
  ~Memory() { std::free(data); }
};

void Hdf5File::open_in_memory(std::int64_t access, std::size_t user_block) {
  memory_ = std::make_unique<Memory>();
  H5FD_file_image_callbacks_t callbacks = {.image_malloc = Memory::allocate,
                                           .image_memcpy = nullptr,
                                           .image_realloc = Memory::grow,
                                           .image_free = Memory::release,
                                           .udata_copy = Memory::same,
                                           .udata_free = Memory::keep,
                                           .udata = memory_.get()};
  checked(H5Pset_file_image_callbacks(access, &callbacks), "prepare to open", "");
  checked(H5Pset_fapl_core(access, 1, false), "prepare to open", "");  // the file ends where its content ends
  checked(H5Pset_alignment(access, 1024, 64), "prepare to open", "");  // tensors on cache lines of the image
  const Handle creation(make_object_options(H5P_FILE_CREATE), H5Pclose);
  checked(H5Pset_userblock(creation, user_block), "prepare to open", "");
  file_ = checked(H5Fcreate(path_.c_str(), H5F_ACC_TRUNC, creation, access), "create the file", "");
}

Hdf5File::Hdf5File(const std::filesystem::path& path, Mode mode, std::size_t user_block)
    : path_(path), mode_(mode) {
  start_library();
  const Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
  // Locks fail on some network file systems, and nobody else ever has a file open that is being written.
  checked(H5Pset_file_locking(access, false, true), "prepare to open", "");
  checked(H5Pset_fclose_degree(access, H5F_CLOSE_STRONG), "prepare to open", "");
  if (mode == Mode::memory) {
    open_in_memory(access, user_block);
  } else if (mode == Mode::create) {
    const Handle creation(make_object_options(H5P_FILE_CREATE), H5Pclose);
    file_ = checked(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, creation, access), "create the file", "");
  } else {
    file_ = checked(H5Fopen(path.c_str(), H5F_ACC_RDONLY, access), "open the file", "");
  }
}

Hdf5File::~Hdf5File() {
  if (file_ >= 0) H5Fclose(file_);
}

void Hdf5File::close() {
  if (file_ < 0) return;
  // Flushed first: a close that fails leaves a handle behind that can never be closed.
  if (mode_ != Mode::read) checked(H5Fflush(file_, H5F_SCOPE_LOCAL), "flush the file", "");
  const hid_t file = file_;
  file_ = -1;
  checked(H5Fclose(file), "close the file", "");
}

FileImage Hdf5File::take_image() {
  check(mode_ == Mode::memory, "Hdf5File::take_image: ", path_.string(), " is not in memory");
  close();
  FileImage image(memory_->data, memory_->bytes);
  *memory_ = {};
  return image;
}

void Hdf5File::create_group(const std::string& name) {
  const Handle link(make_link_options(), H5Pclose);
  const Handle options(make_object_options(H5P_GROUP_CREATE), H5Pclose);
  const Handle group(
      checked(H5Gcreate2(file_, name.c_str(), link, options, H5P_DEFAULT), "create the group", name),
      H5Gclose);
}

bool Hdf5File::contains(const std::string& name) const {
  if (name == "/") return true;
  // H5Lexists refuses a path whose earlier parts are missing, so each part is asked for in turn.
  for (std::size_t end = 0; end != std::string::npos;) {
    end = name.find('/', end + 1);
    if (checked(H5Lexists(file_, name.substr(0, end).c_str(), H5P_DEFAULT), "look up", name) == 0)
      return false;
  }
  return true;
}

bool Hdf5File::is_group(const std::string& name) const {
  const Handle object(checked(H5Oopen(file_, name.c_str(), H5P_DEFAULT), "open", name), H5Oclose);
  return H5Iget_type(object) == H5I_GROUP;
}

std::vector<std::string> Hdf5File::children(const std::string& group) const {
  const Handle opened(checked(H5Gopen2(file_, group.c_str(), H5P_DEFAULT), "open the group", group),
                      H5Gclose);
  std::vector<std::string> names;
  checked(H5Literate(
              opened, H5_INDEX_NAME, H5_ITER_INC, nullptr,
              [](hid_t, const char* name, const auto*, void* list) -> herr_t {
                static_cast<std::vector<std::string>*>(list)->emplace_back(name);
                return 0;
              },
              &names),
          "list the group", group);
  return names;
}

void Hdf5File::set_attribute_raw(const std::string& object, const std::string& key, std::int64_t type,
                                 const void* value) {
  if (has_attribute(object, key))
    checked(H5Adelete_by_name(file_, object.c_str(), key.c_str(), H5P_DEFAULT), "replace the attribute", key);
  const Handle space(H5Screate(H5S_SCALAR), H5Sclose);
  const Handle attribute(checked(H5Acreate_by_name(file_, object.c_str(), key.c_str(), type, space,
                                                   H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT),
                                 "create the attribute", key),
                         H5Aclose);
  checked(H5Awrite(attribute, type, value), "write the attribute", key);
}

void Hdf5File::set_attribute(const std::string& object, const std::string& key, std::int64_t value) {
  set_attribute_raw(object, key, H5T_NATIVE_INT64, &value);
}

void Hdf5File::set_attribute(const std::string& object, const std::string& key, double value) {
  set_attribute_raw(object, key, H5T_NATIVE_DOUBLE, &value);
}

void Hdf5File::set_attribute(const std::string& object, const std::string& key, const std::string& value) {
  const Handle type(make_text_type(), H5Tclose);
  const char* pointer = value.c_str();
  set_attribute_raw(object, key, type, &pointer);
}

std::int64_t Hdf5File::open_attribute(const std::string& object, const std::string& key) const {
  Handle attribute(checked(H5Aopen_by_name(file_, object.c_str(), key.c_str(), H5P_DEFAULT, H5P_DEFAULT),
                           "open the attribute", key),
                   H5Aclose);
  // A list would be read over the end of the one value that callers have room for.
  const Handle space(checked(H5Aget_space(attribute), "describe the attribute", key), H5Sclose);
  const hssize_t values = checked(H5Sget_simple_extent_npoints(space), "describe the attribute", key);
  check(values == 1, Fault::data, "HDF5 file ", path_.string(), ": the attribute ", key, " has ", values,
        " values, expected one. The file is damaged or was not written by Conclave.");
  return attribute.release();
}

bool Hdf5File::has_attribute(const std::string& object, const std::string& key) const {
  return checked(H5Aexists_by_name(file_, object.c_str(), key.c_str(), H5P_DEFAULT), "look up the attribute",
                 key) > 0;
}

std::int64_t Hdf5File::integer_attribute(const std::string& object, const std::string& key) const {
  std::int64_t value = 0;
  const Handle attribute(open_attribute(object, key), H5Aclose);
  checked(H5Aread(attribute, H5T_NATIVE_INT64, &value), "read the integer attribute", key);
  return value;
}

double Hdf5File::real_attribute(const std::string& object, const std::string& key) const {
  double value = 0;
  const Handle attribute(open_attribute(object, key), H5Aclose);
  checked(H5Aread(attribute, H5T_NATIVE_DOUBLE, &value), "read the real attribute", key);
  return value;
}

std::string Hdf5File::text_attribute(const std::string& object, const std::string& key) const {
  const Handle type(make_text_type(), H5Tclose);
  const Handle attribute(open_attribute(object, key), H5Aclose);
  char* pointer = nullptr;
  checked(H5Aread(attribute, type, &pointer), "read the text attribute", key);
  const std::string value = pointer ? pointer : "";
  H5free_memory(pointer);
  return value;
}

std::vector<std::string> Hdf5File::attribute_names(const std::string& object) const {
  const Handle opened(checked(H5Oopen(file_, object.c_str(), H5P_DEFAULT), "open", object), H5Oclose);
  std::vector<std::string> names;
  checked(H5Aiterate2(
              opened, H5_INDEX_NAME, H5_ITER_INC, nullptr,
              [](hid_t, const char* name, const auto*, void* list) -> herr_t {
                static_cast<std::vector<std::string>*>(list)->emplace_back(name);
                return 0;
              },
              &names),
          "list the attributes of", object);
  return names;
}

std::string Hdf5File::attribute_text(const std::string& object, const std::string& key) const {
  H5T_class_t kind;
  {
    const Handle attribute(open_attribute(object, key), H5Aclose);
    const Handle type(checked(H5Aget_type(attribute), "describe the attribute", key), H5Tclose);
    kind = H5Tget_class(type);
  }
  if (kind == H5T_INTEGER) return std::to_string(integer_attribute(object, key));
  if (kind == H5T_FLOAT) return join_text(real_attribute(object, key));
  return text_attribute(object, key);
}

}  // namespace conclave
