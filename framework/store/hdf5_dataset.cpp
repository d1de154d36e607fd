// The datasets of an Hdf5File: whole ones, ones that are filled later, and ones made of parts of other files.
#include <algorithm>
#include <limits>

#include "framework/store/hdf5_internal.h"

namespace conclave {
namespace {

hid_t file_type(ElementType type) {  // what the file holds, on every machine
  switch (type) {
    case ElementType::float32:
      return H5T_IEEE_F32LE;
    case ElementType::float64:
      return H5T_IEEE_F64LE;
    case ElementType::int32:
      return H5T_STD_I32LE;
    case ElementType::int64:
      return H5T_STD_I64LE;
    case ElementType::uint8:
      return H5T_STD_U8LE;
  }
  fail(Fault::internal, "file_type: unknown ElementType");
}

hid_t memory_type(ElementType type) {
  switch (type) {
    case ElementType::float32:
      return H5T_NATIVE_FLOAT;
    case ElementType::float64:
      return H5T_NATIVE_DOUBLE;
    case ElementType::int32:
      return H5T_NATIVE_INT32;
    case ElementType::int64:
      return H5T_NATIVE_INT64;
    case ElementType::uint8:
      return H5T_NATIVE_UINT8;
  }
  fail(Fault::internal, "memory_type: unknown ElementType");
}

std::vector<hsize_t> sizes_of(const Dims& dims) {
  return std::vector<hsize_t>(dims.begin(), dims.end());
}

hid_t make_space(const Dims& dims) {
  const std::vector<hsize_t> sizes = sizes_of(dims);
  return dims.empty() ? H5Screate(H5S_SCALAR)
                      : H5Screate_simple(static_cast<int>(sizes.size()), sizes.data(), nullptr);
}

}  // namespace

std::size_t element_bytes(ElementType type) {
  switch (type) {
    case ElementType::float32:
    case ElementType::int32:
      return 4;
    case ElementType::float64:
    case ElementType::int64:
      return 8;
    case ElementType::uint8:
      return 1;
  }
  fail(Fault::internal, "element_bytes: unknown ElementType");
}

const char* element_name(ElementType type) {
  switch (type) {
    case ElementType::float32:
      return "float32";
    case ElementType::float64:
      return "float64";
    case ElementType::int32:
      return "int32";
    case ElementType::int64:
      return "int64";
    case ElementType::uint8:
      return "uint8";
  }
  fail(Fault::internal, "element_name: unknown ElementType");
}

std::int64_t element_count(const Dims& dims) {
  std::int64_t product = 1;
  for (const std::int64_t size : dims) product *= size;
  return product;
}

std::string dims_text(const Dims& dims) {
  std::string text = "[";
  for (std::size_t dim = 0; dim < dims.size(); ++dim) text += (dim ? ", " : "") + std::to_string(dims[dim]);
  return text + "]";
}

void Hdf5File::write(const std::string& name, ElementType type, const Dims& dims, const void* data) {
  const Handle space(checked(make_space(dims), "describe", name), H5Sclose);
  const Handle link(make_link_options(), H5Pclose);
  const Handle options(make_object_options(H5P_DATASET_CREATE), H5Pclose);
  const Handle dataset(
      checked(H5Dcreate2(file_, name.c_str(), file_type(type), space, link, options, H5P_DEFAULT),
              "create the dataset", name),
      H5Dclose);
  if (element_count(dims) > 0)
    checked(H5Dwrite(dataset, memory_type(type), H5S_ALL, H5S_ALL, H5P_DEFAULT, data), "write the dataset",
            name);
}

void Hdf5File::read(const std::string& name, ElementType type, const Dims& dims, void* data) const {
  const DatasetInfo info = describe(name);
  check(info.type == type && info.dims == dims, Fault::data, "HDF5 file ", path_.string(), ": the dataset ",
        name, " is ", element_name(info.type), " ", dims_text(info.dims), ", expected ", element_name(type),
        " ", dims_text(dims),
        ". The file was written for another configuration; use the recipe that it was written with.");
  if (element_count(dims) == 0) return;
  const Handle dataset(checked(H5Dopen2(file_, name.c_str(), H5P_DEFAULT), "open the dataset", name),
                       H5Dclose);
  checked(H5Dread(dataset, memory_type(type), H5S_ALL, H5S_ALL, H5P_DEFAULT, data), "read the dataset", name);
}

void Hdf5File::read_box(const std::string& name, ElementType type, const Box& box, void* data) const {
  const DatasetInfo info = describe(name);
  bool inside = info.type == type && info.dims.size() == box.start.size();
  for (std::size_t dim = 0; inside && dim < box.start.size(); ++dim)
    inside = box.start[dim] >= 0 && box.start[dim] + box.size[dim] <= info.dims[dim];
  check(inside, Fault::data, "HDF5 file ", path_.string(), ": the dataset ", name, " is ",
        element_name(info.type), " ", dims_text(info.dims), ", in which there is no ", element_name(type),
        " box ", dims_text(box.size), " at ", dims_text(box.start),
        ". The file was written for another configuration; use the recipe that it was written with.");
  if (element_count(box) == 0) return;
  const hsize_t elements = static_cast<hsize_t>(element_count(box));
  const Handle dataset(checked(H5Dopen2(file_, name.c_str(), H5P_DEFAULT), "open the dataset", name),
                       H5Dclose);
  const Handle source(checked(H5Dget_space(dataset), "describe", name), H5Sclose);
  select(source, box, name);
  const Handle target(checked(H5Screate_simple(1, &elements, nullptr), "describe", name), H5Sclose);
  checked(H5Dread(dataset, memory_type(type), target, source, H5P_DEFAULT, data), "read the dataset", name);
}

void Hdf5File::select(std::int64_t space, const Box& box, const std::string& name) const {
  const std::vector<hsize_t> start = sizes_of(box.start), size = sizes_of(box.size);
  checked(H5Sselect_hyperslab(space, H5S_SELECT_SET, start.data(), nullptr, size.data(), nullptr),
          "select in", name);
}

std::size_t Hdf5File::reserve(const std::string& name, ElementType type, const Dims& dims) {
  const Handle space(checked(make_space(dims), "describe", name), H5Sclose);
  const Handle link(make_link_options(), H5Pclose);
  const Handle layout(checked(make_object_options(H5P_DATASET_CREATE), "describe", name), H5Pclose);
  checked(H5Pset_layout(layout, H5D_CONTIGUOUS), "describe", name);
  checked(H5Pset_alloc_time(layout, H5D_ALLOC_TIME_EARLY), "describe", name);
  checked(H5Pset_fill_time(layout, H5D_FILL_TIME_NEVER), "describe", name);
  const Handle dataset(
      checked(H5Dcreate2(file_, name.c_str(), file_type(type), space, link, layout, H5P_DEFAULT),
              "create the dataset", name),
      H5Dclose);
  const haddr_t offset = H5Dget_offset(dataset);
  check(offset != HADDR_UNDEF, "Hdf5File::reserve: ", name, " in ", path_.string(), " has no place");
  return static_cast<std::size_t>(offset);
}

void Hdf5File::write_virtual(const std::string& name, ElementType type, const Dims& dims,
                             const std::vector<VirtualPart>& parts) {
  const Handle space(checked(make_space(dims), "describe", name), H5Sclose);
  const Handle link(make_link_options(), H5Pclose);
  const Handle layout(checked(make_object_options(H5P_DATASET_CREATE), "describe", name), H5Pclose);
  for (const VirtualPart& part : parts) {
    const Handle source(checked(make_space(part.dims), "describe", name), H5Sclose);
    select(source, part.from, name);
    select(space, part.to, name);
    checked(H5Pset_virtual(layout, space, part.file.c_str(), part.dataset.c_str(), source), "describe", name);
  }
  if (!parts.empty()) {
    const double nan = std::numeric_limits<double>::quiet_NaN();
    const std::int64_t minus_one = -1;
    if (type == ElementType::float32 || type == ElementType::float64)
      checked(H5Pset_fill_value(layout, H5T_NATIVE_DOUBLE, &nan), "describe", name);
    else if (type != ElementType::uint8)
      checked(H5Pset_fill_value(layout, H5T_NATIVE_INT64, &minus_one), "describe", name);
    checked(H5Sselect_all(space), "describe", name);
  }
  const Handle dataset(
      checked(H5Dcreate2(file_, name.c_str(), file_type(type), space, link, layout, H5P_DEFAULT),
              "create the dataset", name),
      H5Dclose);
}

DatasetInfo Hdf5File::describe(const std::string& name) const {
  const Handle dataset(checked(H5Dopen2(file_, name.c_str(), H5P_DEFAULT), "open the dataset", name),
                       H5Dclose);
  const Handle space(checked(H5Dget_space(dataset), "describe", name), H5Sclose);
  const Handle type(checked(H5Dget_type(dataset), "describe", name), H5Tclose);
  DatasetInfo info;
  std::vector<hsize_t> sizes(
      static_cast<std::size_t>(checked(H5Sget_simple_extent_ndims(space), "describe", name)));
  if (!sizes.empty()) checked(H5Sget_simple_extent_dims(space, sizes.data(), nullptr), "describe", name);
  // Sizes come from a foreign file and callers multiply them.
  bool countable = true;
  for (const hsize_t size : sizes) countable = countable && size <= hsize_t{1} << 48;
  double elements = 1;
  for (const hsize_t size : sizes) elements *= static_cast<double>(std::max<hsize_t>(size, 1));
  info.dims.assign(sizes.begin(), sizes.end());
  check(countable && elements <= 0x1p58, Fault::data, "HDF5 file ", path_.string(), ": the dataset ", name,
        " announces more elements than any disk holds. The file is damaged.");
  for (const ElementType candidate : {ElementType::float32, ElementType::float64, ElementType::int32,
                                      ElementType::int64, ElementType::uint8}) {
    if (checked(H5Tequal(type, file_type(candidate)), "describe", name) > 0) {
      info.type = candidate;
      return info;
    }
  }
  fail(Fault::data, "HDF5 file ", path_.string(), ": the dataset ", name,
       " has an element type that Conclave does not read; expected float32, float64, int32, int64 or uint8.");
}

}  // namespace conclave
