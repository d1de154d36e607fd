// Origin: a class of transformers that an import reads and no export writes. Its tensors are those of an
// architecture under other names, as parts of larger ones, or in another form. Each origin stands in a small
// file; a new one is such a file and a line in origin.cpp.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "launch/tools/convert/architecture.h"
#include "launch/tools/convert/hub_directory.h"

namespace conclave {

/// What a view is made for: one tensor as the architecture calls it.
struct WantedTensor {
  const std::string& name;
  const Dims& shape;
  const ModelRecipe& model;
  const ConfigReader& config;
};

struct Origin {
  const char* model_type;  // of config.json
  const char* class_name;  // of transformers
  const Architecture& architecture;
  /// Reads the keys that are its own into the model, after read_common_config.
  void (*read_config)(const ConfigReader& config, ModelRecipe& model);
  /// Says how a tensor is stored. Nothing, or no function: under its name, as it is.
  std::optional<TensorView> (*view)(const WantedTensor& tensor) = nullptr;
  /// What changes on the way, as a sentence; nullptr: nothing.
  const char* note = nullptr;
};

extern const Origin granitemoe_origin, granitemoeshared_origin;
extern const Origin mistral, ministral, seed_oss, smollm3, phi3, granite;
extern const Origin ernie4_5, ernie4_5_moe, exaone_moe, hunyuan_v1_dense, hunyuan_v1_moe;

/// Finds the class that a config.json names. Throws Fault::data where Conclave does not read it, with the
/// part that Conclave lacks where that is known. The class in `architectures` must be this one.
Origin origin_of(const ConfigReader& config);

/// Adds the views that a directory needs so that it has the wanted tensors.
void add_views(const Origin& origin, const std::vector<HubTensor>& wanted, const ModelRecipe& model,
               const ConfigReader& config, HubDirectory& directory);

// The files of origins use the following.

/// Reads what all models without experts have in common: every block is dense.
void read_dense_keys(const ConfigReader& config, ModelRecipe& model);
/// The view of a whole tensor under another name.
TensorView renamed(const std::string& name, const Dims& shape);
/// The name with its last part in place of another: "a.q_norm.weight" becomes "a.query_layernorm.weight".
/// Nothing where the name does not end so.
std::optional<std::string> with_ending(const std::string& name, const std::string& ending,
                                       const std::string& other);

}  // namespace conclave
