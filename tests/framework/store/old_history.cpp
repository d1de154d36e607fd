#include "tests/framework/store/old_history.h"

#include <hdf5.h>

#include <algorithm>
#include <string>
#include <vector>

#include "framework/base/error.h"

namespace conclave {
namespace {

void add_number(hid_t file, const char* name, std::int64_t value) {
  const hid_t space = H5Screate(H5S_SCALAR);
  const hid_t attribute = H5Acreate2(file, name, H5T_NATIVE_INT64, space, H5P_DEFAULT, H5P_DEFAULT);
  check(H5Awrite(attribute, H5T_NATIVE_INT64, &value) >= 0, "write_old_history: ", name);
  H5Aclose(attribute);
  H5Sclose(space);
}

void add_text(hid_t file, const char* name, const std::string& text) {
  const hid_t type = H5Tcopy(H5T_C_S1);
  H5Tset_size(type, H5T_VARIABLE);
  H5Tset_cset(type, H5T_CSET_UTF8);
  const hid_t space = H5Screate(H5S_SCALAR);
  const hid_t attribute = H5Acreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
  const char* pointer = text.c_str();
  check(H5Awrite(attribute, type, &pointer) >= 0, "write_old_history: ", name);
  H5Aclose(attribute);
  H5Sclose(space);
  H5Tclose(type);
}

/// Chunks of 16 KB without an end, as they were.
void add_rows(hid_t file, const char* name, hid_t stored, hid_t type, std::vector<hsize_t> dims,
              const void* data) {
  std::vector<hsize_t> limits = dims, chunk = dims;
  limits[0] = H5S_UNLIMITED;
  hsize_t row_bytes = 8;
  for (std::size_t i = 1; i < dims.size(); ++i) row_bytes *= dims[i];
  chunk[0] = std::max<hsize_t>(16384 / row_bytes, 1);
  const hid_t space = H5Screate_simple(static_cast<int>(dims.size()), dims.data(), limits.data());
  const hid_t link = H5Pcreate(H5P_LINK_CREATE), layout = H5Pcreate(H5P_DATASET_CREATE);
  H5Pset_create_intermediate_group(link, 1);
  H5Pset_chunk(layout, static_cast<int>(chunk.size()), chunk.data());
  const hid_t dataset = H5Dcreate2(file, name, stored, space, link, layout, H5P_DEFAULT);
  check(H5Dwrite(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0, "write_old_history: ", name);
  H5Dclose(dataset);
  H5Pclose(layout);
  H5Pclose(link);
  H5Sclose(space);
}

}  // namespace

void write_old_history(const std::filesystem::path& path, const ExpertHistory& history, OldVersion version) {
  const hid_t file = H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
  check(file >= 0, "write_old_history: ", path.string());
  const auto whole = [&](const char* name, const std::vector<hsize_t>& dims,
                         const std::vector<std::int64_t>& values) {
    add_rows(file, name, H5T_STD_I64LE, H5T_NATIVE_INT64, dims, values.data());
  };
  const auto real = [&](const char* name, const std::vector<hsize_t>& dims,
                        const std::vector<double>& values) {
    add_rows(file, name, H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, dims, values.data());
  };
  const hsize_t steps = history.step.size(), evaluations = history.evaluation_step.size(),
                domains = history.domains.size(), layers = static_cast<hsize_t>(history.layers),
                experts = static_cast<hsize_t>(history.experts),
                ranks = static_cast<hsize_t>(history.expert_ranks);
  add_number(file, "layers", history.layers);
  add_number(file, "experts", history.experts);
  std::string names;
  for (const std::string& domain : history.domains) names += (names.empty() ? "" : "\n") + domain;
  add_text(file, "domains", names);
  whole("step", {steps}, history.step);
  whole("counts", {steps, layers, experts}, history.counts);
  real("probability", {steps, layers, experts}, history.probability);
  whole("evaluation/step", {evaluations}, history.evaluation_step);
  whole("evaluation/counts", {evaluations, domains, layers, experts}, history.evaluation_counts);
  if (version == OldVersion::last) {
    add_number(file, "expert_ranks", history.expert_ranks);
    whole("load_per_expert_rank", {steps, layers, ranks}, history.load_per_expert_rank);
    real("layer_balance_loss", {steps, layers}, history.layer_balance_loss);
    real("layer_load_violation", {steps, layers}, history.layer_load_violation);
    real("evaluation/score_sum", {evaluations, domains, layers}, history.evaluation_score_sum);
    real("evaluation/entropy", {evaluations, domains, layers}, history.evaluation_entropy);
  }
  H5Fclose(file);
}

}  // namespace conclave
