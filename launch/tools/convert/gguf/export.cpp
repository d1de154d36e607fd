#include "launch/tools/convert/gguf/export.h"

#include <algorithm>
#include <optional>

#include "framework/base/error.h"
#include "framework/base/text.h"
#include "framework/store/lookup.h"
#include "launch/tools/convert/chosen_tokenizer.h"
#include "launch/tools/convert/exported_checkpoint.h"
#include "launch/tools/convert/gguf/imported_texts.h"
#include "launch/tools/convert/gguf/tensors.h"
#include "launch/tools/convert/gguf/vocabulary.h"
#include "launch/tools/convert/hub_config.h"
#include "layers/moe/recipe.h"

namespace conclave::gguf {
namespace fs = std::filesystem;

namespace {

/// How the numbers of Q8_0 are rounded; the number is that of the second version of all quantised types.
constexpr std::uint32_t quantization_version = 2;

KeyValues keys_of(const ExportOptions& options, const Architecture& architecture,
                  const ExportedCheckpoint& checkpoint, const Say& say) {
  const Recipe& recipe = checkpoint.recipe();
  const std::optional<SourceFacts> source = SourceFacts::of(checkpoint.reader());
  const ChosenTokenizer chosen = choose_tokenizer(recipe, options.tokenizer, source, say);
  KeyValues keys;
  keys.add("general.architecture", architecture.name);
  keys.add("general.type", "model");
  keys.add("general.name", recipe.name);
  keys.add("general.file_type", file_type_of(options.type));
  if (options.type == NumberType::q8_0) keys.add("general.quantization_version", quantization_version);
  write_model_keys(architecture, recipe.model, longest_sequence(recipe, source), keys);
  Vocabulary vocabulary = vocabulary_of(chosen.name, recipe.model.vocab_size, say);
  if (chosen.is_sources) {
    const std::optional<std::int32_t> unknown = vocabulary.ids.unknown;
    vocabulary.ids = ids_of_source(*source);
    vocabulary.ids.unknown = unknown;
  }
  vocabulary.write(keys);
  write_imported_texts(chosen, source, keys);
  return keys;
}

/// Where rows have no whole blocks, the file has another type than was asked for.
void say_what_is_not_quantised(const std::vector<Tensor>& tensors, const Say& say) {
  std::vector<std::string> names;
  for (const Tensor& tensor : tensors)
    if (tensor.plan.type == NumberType::f16) names.push_back(tensor.plan.name);
  if (names.empty()) return;
  say(join_text(counted(static_cast<std::int64_t>(names.size()), "tensor"), " (", names.front(),
                names.size() > 1 ? " and others" : "",
                ") have rows whose length is no multiple of 32, and stay in fp16."));
}

/// Rows of a block of experts are read one expert after another.
void write_tensor(const ExportedCheckpoint& checkpoint, const Tensor& tensor, FileWriter& writer) {
  const Dims& shape = tensor.plan.shape;
  const bool is_stack = shape.size() == 3;
  for (std::int64_t part = 0; part < (is_stack ? shape[0] : 1); ++part) {
    std::vector<float> values;
    if (tensor.source.empty()) {
      values.resize(static_cast<std::size_t>(element_count(shape)));
    } else {
      Box box{Dims(tensor.source_dims.size(), 0), tensor.source_dims};
      const std::int64_t row = is_stack ? part : tensor.source_row;
      if (row >= 0) box.start[0] = row, box.size[0] = 1;
      values = checkpoint.read(tensor.source, box);
    }
    if (tensor.heads > 0) pair_rows(values, shape[0], tensor.heads);
    writer.write(values.data(), values.size());
  }
}

void write_file(const fs::path& path, const KeyValues& keys, const ExportedCheckpoint& checkpoint,
                const std::vector<Tensor>& tensors, const Say& say) {
  std::vector<TensorPlan> plans;
  for (const Tensor& tensor : tensors) plans.push_back(tensor.plan);
  const std::uint64_t bytes = file_bytes(keys, plans);
  check_free_space(path.parent_path(), bytes);
  FileWriter writer(path, keys, plans);
  for (const Tensor& tensor : tensors) write_tensor(checkpoint, tensor, writer);
  writer.finish();
  say(join_text(counted(static_cast<std::int64_t>(tensors.size()), "tensor"), ", ",
                bytes_text(static_cast<double>(bytes))));
}

void say_what_older_versions_lack(const ModelRecipe& model, const Say& say) {
  if (count_moe_layers(model) > 0 && model.moe.router.topk_group < model.moe.router.n_group)
    say("llama.cpp chooses among groups of experts since the autumn of 2025; older versions ignore the "
        "groups.");
}

}  // namespace

void export_model(const ExportOptions& options, const Say& say) {
  check(!is_there(options.file, Fault::request), Fault::request, options.file.string(),
        " is there already; choose a file that is not.");
  const ExportedCheckpoint checkpoint(options.checkpoint, say);
  const ModelRecipe& model = checkpoint.recipe().model;
  const Architecture& architecture = architecture_for(options.architecture, model);
  checkpoint.check_parameters();
  say(join_text(checkpoint.reader().path().string(), ", every checksum is right, as llama.cpp's ",
                architecture.name, " in ", name_of(options.type)));
  checkpoint.say_what_is_left_out(say);
  say_what_older_versions_lack(model, say);
  const KeyValues keys = keys_of(options, architecture, checkpoint, say);
  const std::vector<Tensor> tensors = tensors_of(architecture, model, options.type);
  if (options.type == NumberType::q8_0) say_what_is_not_quantised(tensors, say);

  const fs::path file = fs::absolute(options.file), partial = partial_path(file);
  check(!is_there(partial, Fault::request), Fault::request, partial.string(),
        " is there, perhaps of an export that was cut off; remove it first.");
  make_directories(file.parent_path());
  try {
    write_file(partial, keys, checkpoint, tensors, say);
    publish(partial, file);
  } catch (...) {
    std::error_code ignored;
    fs::remove(partial, ignored);
    throw;
  }
}

}  // namespace conclave::gguf
