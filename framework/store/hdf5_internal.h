// The two sources of Hdf5File share this header: the handle, HDF5's reason for a failure, and the one check.
// It is private to framework/store. No other code may include it, so that hdf5.h stays out of the rest of the
// house.
#pragma once

#include <hdf5.h>

#include <string>
#include <utility>

#include "framework/base/error.h"
#include "framework/store/hdf5_file.h"

namespace conclave {

class Handle {
 public:
  Handle(hid_t id, herr_t (*close)(hid_t)) : id_(id), close_(close) {}
  ~Handle() {
    if (id_ >= 0) close_(id_);
  }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  operator hid_t() const { return id_; }
  /// Hands the handle out; from now on the caller closes it.
  hid_t release() { return std::exchange(id_, -1); }

 private:
  hid_t id_;
  herr_t (*close_)(hid_t);
};

/// The first entry of HDF5's error stack, which is where the failure began. A system error gives only its
/// message.
inline std::string innermost_reason() {
  std::string reason;
  H5Ewalk2(
      H5E_DEFAULT, H5E_WALK_UPWARD,
      [](unsigned position, const H5E_error2_t* error, void* text) -> herr_t {
        if (position == 0 && error->desc) *static_cast<std::string*>(text) = error->desc;
        return 0;
      },
      &reason);
  const std::string mark = "error message = '";
  if (const auto begin = reason.find(mark); begin != std::string::npos) {
    const auto from = begin + mark.size();
    reason = reason.substr(from, reason.find('\'', from) - from);
  }
  return reason.empty() ? "no reason given" : reason;
}

/// The options with which an object is made. Times in it would make equal runs leave different files.
inline hid_t make_object_options(hid_t kind) {
  const hid_t options = H5Pcreate(kind);
  H5Pset_obj_track_times(options, false);
  return options;
}

/// Link creation that makes the groups on the way.
inline hid_t make_link_options() {
  const hid_t options = H5Pcreate(H5P_LINK_CREATE);
  H5Pset_create_intermediate_group(options, 1);
  return options;
}

template <class Result>
Result Hdf5File::checked(Result result, const char* action, const std::string& name) const {
  if (result >= 0) return result;
  const std::string reason = innermost_reason();
  if (mode_ == Mode::read)
    fail(Fault::data, "HDF5 file ", path_.string(), ": cannot ", action, name.empty() ? "" : " ", name, " (",
         reason, "). The file is missing, damaged or not what was expected here.");
  fail(Fault::machine, "HDF5 file ", path_.string(), ": cannot ", action, name.empty() ? "" : " ", name, " (",
       reason, "). Check free space and permissions of its directory.");
}

}  // namespace conclave
