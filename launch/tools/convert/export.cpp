#include "launch/tools/convert/export.h"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <map>
#include <optional>
#include <set>
#include <vector>

#include "framework/base/error.h"
#include "framework/base/text.h"
#include "framework/data/tokenizer.h"
#include "framework/store/checkpoint_directory.h"
#include "framework/store/checkpoint_file.h"
#include "framework/store/durable_file.h"
#include "framework/store/lookup.h"
#include "framework/store/safetensors.h"
#include "launch/tools/convert/hub_config.h"
#include "launch/tools/convert/hub_tensors.h"
#include "launch/tools/convert/json_file.h"
#include "launch/tools/convert/modeling_code.h"
#include "launch/tools/convert/tokenizer_files.h"
#include "launch/train/model.h"
#include "layers/moe/recipe.h"

namespace conclave {
namespace fs = std::filesystem;

namespace {

using OrderedJson = nlohmann::ordered_json;

/// Every parameter of the model is in the checkpoint with its shape, and nothing else.
void check_parameters(const CheckpointReader& checkpoint, const ModelRecipe& model) {
  const std::vector<std::string> names = checkpoint.names("model");
  std::set<std::string> unused(names.begin(), names.end());
  std::string wrong;
  for (const auto& [name, dims] : parameter_dims(model)) {
    const std::string full = "model/" + name;
    if (unused.erase(full) == 0) {
      wrong += "\n  " + full + " is missing";
      continue;
    }
    const DatasetInfo info = checkpoint.describe(full);
    if (info.dims != dims || (info.type != ElementType::float32 && info.type != ElementType::float64))
      wrong += join_text("\n  ", full, " is ", element_name(info.type), " ", dims_text(info.dims),
                         ", expected ", dims_text(dims));
  }
  for (const std::string& name : unused) wrong += "\n  " + name + " is not in the model";
  check(wrong.empty(), Fault::data, checkpoint.path().string(), " does not fit its own recipe:", wrong);
}

/// The numbers of a part of a tensor, as float32.
std::vector<float> read(const CheckpointReader& checkpoint, const HubPart& part) {
  std::vector<float> values(static_cast<std::size_t>(part.elements()));
  if (!checkpoint.contains(part.source)) return values;  // a selection bias that the run did not have
  const ElementType type = checkpoint.describe(part.source).type;
  if (type == ElementType::float32) {
    checkpoint.read_box(part.source, type, part.box(), values.data());
  } else {
    std::vector<double> wide(values.size());
    checkpoint.read_box(part.source, ElementType::float64, part.box(), wide.data());
    std::copy(wide.begin(), wide.end(), values.begin());
  }
  return values;
}

void write_tensor(SafetensorsWriter& writer, const CheckpointReader& checkpoint, const HubTensor& tensor) {
  for (const HubPart& part : tensor.parts) {
    const std::vector<float> values = read(checkpoint, part);
    writer.write(values.data(), values.size());
  }
  if (!tensor.parts.empty()) return;
  const std::vector<float> zeros(static_cast<std::size_t>(element_count(tensor.shape)));
  writer.write(zeros.data(), zeros.size());
}

struct File {
  std::string name;
  std::size_t first = 0, count = 0;  // of the tensors
  std::uint64_t bytes = 0;
};

/// Which tensors go to which file.
std::vector<File> share_out(const std::vector<SafeTensorPlan>& plans, std::uint64_t most) {
  std::vector<File> files;
  for (std::size_t i = 0; i < plans.size(); ++i) {
    if (files.empty() || (files.back().bytes > 0 && files.back().bytes + plans[i].bytes() > most))
      files.push_back({"", i, 0, 0});
    ++files.back().count;
    files.back().bytes += plans[i].bytes();
  }
  for (std::size_t i = 0; i < files.size(); ++i) {
    char name[64];
    std::snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", i + 1, files.size());
    files[i].name = files.size() == 1 ? "model.safetensors" : name;
  }
  return files;
}

void write_index(const fs::path& directory, const std::vector<HubTensor>& tensors,
                 const std::vector<File>& files) {
  OrderedJson index;
  std::uint64_t bytes = 0;
  for (const File& file : files) bytes += file.bytes;
  index["metadata"] = {{"total_size", bytes}};
  std::map<std::string, std::string> file_of;
  for (const File& file : files)
    for (std::size_t i = file.first; i < file.first + file.count; ++i) file_of[tensors[i].name] = file.name;
  index["weight_map"] = file_of;
  write_json(directory / "model.safetensors.index.json", index);
}

void write_weights(const fs::path& directory, const CheckpointReader& checkpoint,
                   const std::vector<HubTensor>& tensors, const ExportOptions& options,
                   const std::function<void(const std::string&)>& say) {
  std::vector<SafeTensorPlan> plans;
  for (const HubTensor& tensor : tensors)
    plans.push_back({tensor.name, options.bfloat16 && !tensor.keep_float32, tensor.shape});
  const std::vector<File> files = share_out(plans, options.shard_bytes);
  std::uint64_t bytes = 0;
  for (const File& file : files) bytes += file.bytes;
  check_free_space(directory, bytes + bytes / 64);
  for (const File& file : files) {
    const auto begin = plans.begin() + static_cast<std::ptrdiff_t>(file.first);
    SafetensorsWriter writer(directory / file.name, {begin, begin + static_cast<std::ptrdiff_t>(file.count)});
    for (std::size_t i = file.first; i < file.first + file.count; ++i)
      write_tensor(writer, checkpoint, tensors[i]);
    writer.finish();
    say(join_text(file.name, ": ", counted(static_cast<std::int64_t>(file.count), "tensor"), ", ",
                  bytes_text(static_cast<double>(file.bytes))));
  }
  if (files.size() > 1) write_index(directory, tensors, files);
}

/// The tokenizer's files, and the roles of its tokens; nothing where they are those of the imported model.
std::optional<TokenRoles> write_tokenizer(const fs::path& directory, const Recipe& recipe,
                                          const ExportOptions& options,
                                          const std::optional<SourceFacts>& source,
                                          const std::function<void(const std::string&)>& say) {
  const std::string name = options.tokenizer.empty() ? recipe.data.tokenizer : options.tokenizer;
  if (name == "none") return source ? std::nullopt : std::optional<TokenRoles>(TokenRoles{});
  const bool is_sources = source && tokenizer_fingerprint(name) == source->tokenizer;
  if (is_sources && !source->is_own_tokenizer) {
    copy_tokenizer_files(fs::path(name).parent_path(), directory);
    say("The tokenizer and the ids of special tokens are those of the imported model.");
    return {};
  }
  // A recipe names some tokenizer, if only by default; that need not be the one of these rows.
  if (source && source->tokenizer.empty() && options.tokenizer.empty() &&
      !source->may_end_with(load_tokenizer(name)->end_of_document())) {
    say(join_text("The imported model came without a tokenizer, and ", name,
                  " ends a text with another token than it does, so none is written; --tokenizer NAME writes "
                  "one."));
    return {};
  }
  if (source && !is_sources)
    say(join_text("The ids of special tokens are those of ", name,
                  ", which is not the tokenizer of the imported model."));
  const TokenRoles roles =
      export_tokenizer(name, recipe.model.vocab_size, longest_sequence(recipe, source), directory, say);
  if (is_sources) source->templates.write(directory);
  return roles;
}

}  // namespace

void export_model(const ExportOptions& options, const std::function<void(const std::string&)>& say) {
  check(!is_there(options.directory, Fault::request) ||
            (is_directory_there(options.directory, Fault::request) &&
             entries_of(options.directory, Fault::request).empty()),
        Fault::request, options.directory.string(), " is there already; choose a directory that is not.");
  const FoundCheckpoint found = find_checkpoint(options.checkpoint);
  for (const std::string& sentence : found.rejected) say(sentence);
  const CheckpointReader checkpoint(*found.path, Verify::nothing);  // found by having verified every byte
  const Recipe recipe = recipe_of(checkpoint);
  const Architecture& architecture = choose_architecture(options.architecture, recipe.model);
  check_parameters(checkpoint, recipe.model);
  say(join_text(found.path->string(), ", every checksum is right, as ", architecture.class_name, " in ",
                options.bfloat16 ? "bf16" : "fp32"));
  if (architecture.brings_code)
    say(join_text("The class is none of transformers' own: ", modeling_file,
                  " beside the weights is its code, and loading it takes trust_remote_code=True."));
  if (architecture.needs_shared_experts && recipe.model.moe.num_shared_experts == 0)
    say("A shared expert of zeros is added to each block, as this architecture always has one.");
  if (recipe.training.precision == NumberFormat::fp64) say("Its weights of 64 bits are rounded.");
  if (recipe.model.moe.capacity_factor > 0)
    say("The capacity of experts is left out: it drops tokens in training, and no architecture knows it.");
  if (recipe.model.moe.router.pool.maximum > 0)
    say("The pools of experts by document are left out: the exported model chooses among all experts for "
        "every token, as no architecture knows pools.");

  // The name without a slash at its end, which would put what is unfinished inside the directory.
  const fs::path directory = fs::absolute(options.directory / "").parent_path();
  const fs::path partial = partial_path(directory);
  check(!is_there(partial, Fault::request), Fault::request, partial.string(),
        " is there, perhaps of an export that was cut off; remove it first.");
  std::error_code ignored;
  make_directories(partial);
  try {
    const std::optional<SourceFacts> source = SourceFacts::of(checkpoint);
    const auto roles = write_tokenizer(partial, recipe, options, source, say);
    write_hub_config(partial, {.architecture = architecture,
                               .recipe = recipe,
                               .bfloat16 = options.bfloat16,
                               .roles = roles,
                               .source = source});
    write_weights(partial, checkpoint, hub_tensors(architecture, recipe.model), options, say);
    sync_to_disk(partial);
    publish(partial, directory);
  } catch (...) {
    fs::remove_all(partial, ignored);
    throw;
  }
}

std::uint64_t bytes_from_text(const std::string& text) {
  std::uint64_t number = 0, unit = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), number);
  const std::string suffix(end, text.data() + text.size());
  for (const auto& [name, bytes] : {std::pair<const char*, std::uint64_t>{"", 1},
                                    {"KB", 1000},
                                    {"MB", 1000'000},
                                    {"GB", 1000'000'000},
                                    {"KiB", 1ull << 10},
                                    {"MiB", 1ull << 20},
                                    {"GiB", 1ull << 30}})
    if (suffix == name) unit = bytes;
  check(code == std::errc() && unit > 0 && number > 0 && !__builtin_mul_overflow(number, unit, &number),
        Fault::request, "export: --shard-size '", text,
        "' came, expected a number of bytes such as 5GB, 500MB or 2GiB");
  return number;
}

}  // namespace conclave
