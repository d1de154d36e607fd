#include "launch/tools/convert/export.h"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <map>
#include <optional>
#include <vector>

#include "framework/base/error.h"
#include "framework/base/text.h"
#include "framework/store/durable_file.h"
#include "framework/store/lookup.h"
#include "framework/store/safetensors.h"
#include "launch/tools/convert/chosen_tokenizer.h"
#include "launch/tools/convert/exported_checkpoint.h"
#include "launch/tools/convert/hub_config.h"
#include "launch/tools/convert/hub_tensors.h"
#include "launch/tools/convert/json_file.h"
#include "launch/tools/convert/modeling_code.h"
#include "launch/tools/convert/tokenizer_files.h"

namespace conclave {
namespace fs = std::filesystem;

namespace {

using OrderedJson = nlohmann::ordered_json;

void write_tensor(SafetensorsWriter& writer, const ExportedCheckpoint& checkpoint, const HubTensor& tensor) {
  for (const HubPart& part : tensor.parts) {
    const std::vector<float> values = checkpoint.read(part.source, part.box());
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

void write_weights(const fs::path& directory, const ExportedCheckpoint& checkpoint,
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
  const ChosenTokenizer chosen = choose_tokenizer(recipe, options.tokenizer, source, say);
  if (chosen.is_sources && !chosen.name.empty())
    copy_tokenizer_files(fs::path(chosen.name).parent_path(), directory);
  if (chosen.is_sources) return {};
  if (chosen.name.empty()) return TokenRoles{};
  const TokenRoles roles = export_tokenizer(chosen.name, recipe.model.vocab_size,
                                            longest_sequence(recipe, source), directory, say);
  if (chosen.is_sources_own) source->templates.write(directory);
  return roles;
}

}  // namespace

void export_model(const ExportOptions& options, const std::function<void(const std::string&)>& say) {
  check(!is_there(options.directory, Fault::request) ||
            (is_directory_there(options.directory, Fault::request) &&
             entries_of(options.directory, Fault::request).empty()),
        Fault::request, options.directory.string(), " is there already; choose a directory that is not.");
  const ExportedCheckpoint checkpoint(options.checkpoint, say);
  const Recipe& recipe = checkpoint.recipe();
  const Architecture& architecture = choose_architecture(options.architecture, recipe.model);
  checkpoint.check_parameters();
  say(join_text(checkpoint.reader().path().string(), ", every checksum is right, as ",
                architecture.class_name, " in ", options.bfloat16 ? "bf16" : "fp32"));
  if (architecture.brings_code)
    say(join_text("The class is none of transformers' own: ", modeling_file,
                  " beside the weights is its code, and loading it takes trust_remote_code=True."));
  if (architecture.needs_shared_experts && recipe.model.moe.num_shared_experts == 0)
    say("A shared expert of zeros is added to each block, as this architecture always has one.");
  checkpoint.say_what_is_left_out(say);

  // The name without a slash at its end, which would put what is unfinished inside the directory.
  const fs::path directory = fs::absolute(options.directory / "").parent_path();
  const fs::path partial = partial_path(directory);
  check(!is_there(partial, Fault::request), Fault::request, partial.string(),
        " is there, perhaps of an export that was cut off; remove it first.");
  std::error_code ignored;
  make_directories(partial);
  try {
    const std::optional<SourceFacts> source = SourceFacts::of(checkpoint.reader());
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
