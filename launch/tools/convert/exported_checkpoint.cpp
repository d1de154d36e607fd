#include "launch/tools/convert/exported_checkpoint.h"

#include <algorithm>
#include <set>

#include "framework/base/error.h"
#include "framework/store/checkpoint_directory.h"
#include "framework/store/safetensors.h"
#include "launch/tools/convert/hub_tensors.h"
#include "launch/train/model.h"

namespace conclave {
namespace {

std::filesystem::path found_at(const std::filesystem::path& path,
                               const std::function<void(const std::string&)>& say) {
  const FoundCheckpoint found = find_checkpoint(path);
  for (const std::string& sentence : found.rejected) say(sentence);
  return *found.path;
}

}  // namespace

// Verified once more would be no news: it was found by having verified every byte.
ExportedCheckpoint::ExportedCheckpoint(const std::filesystem::path& path,
                                       const std::function<void(const std::string&)>& say)
    : reader_(found_at(path, say), Verify::nothing), recipe_(recipe_of(reader_)) {}

void ExportedCheckpoint::check_parameters() const {
  const std::vector<std::string> names = reader_.names("model");
  std::set<std::string> unused(names.begin(), names.end());
  std::string wrong;
  for (const auto& [name, dims] : parameter_dims(recipe_.model)) {
    const std::string full = "model/" + name;
    if (unused.erase(full) == 0) {
      wrong += "\n  " + full + " is missing";
      continue;
    }
    const DatasetInfo info = reader_.describe(full);
    if (info.dims != dims || (info.type != ElementType::float32 && info.type != ElementType::float64))
      wrong += join_text("\n  ", full, " is ", element_name(info.type), " ", dims_text(info.dims),
                         ", expected ", dims_text(dims));
  }
  for (const std::string& name : unused) wrong += "\n  " + name + " is not in the model";
  check(wrong.empty(), Fault::data, reader_.path().string(), " does not fit its own recipe:", wrong);
}

void ExportedCheckpoint::say_what_is_left_out(const std::function<void(const std::string&)>& say) const {
  if (recipe_.training.precision == NumberFormat::fp64) say("Its weights of 64 bits are rounded.");
  if (recipe_.model.moe.capacity_factor > 0)
    say("The capacity of experts is left out: it drops tokens in training, and no architecture knows it.");
  if (recipe_.model.moe.router.pool.maximum > 0)
    say("The pools of experts by document are left out: the exported model chooses among all experts for "
        "every token, as no architecture knows pools.");
}

std::vector<float> ExportedCheckpoint::read(const std::string& name, const Box& box) const {
  std::vector<float> values(static_cast<std::size_t>(element_count(box)));
  if (!reader_.contains(name)) return values;
  const ElementType type = reader_.describe(name).type;
  if (type == ElementType::float32) {
    reader_.read_box(name, type, box, values.data());
  } else {
    std::vector<double> wide(values.size());
    reader_.read_box(name, ElementType::float64, box, wide.data());
    std::copy(wide.begin(), wide.end(), values.begin());
  }
  return values;
}

}  // namespace conclave
