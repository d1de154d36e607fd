#include "launch/tools/convert/first_checkpoint.h"

#include <cstring>

#include "framework/store/lookup.h"
#include "launch/train/rank_parts.h"
#include "launch/train/recipe_text.h"

namespace conclave {

void check_place_of_run(const std::filesystem::path& run) {
  check(!is_there(run, Fault::request) ||
            (is_directory_there(run, Fault::request) && entries_of(run, Fault::request).empty()),
        Fault::request, run.string(), " is there already; choose a directory that is not, or remove it.");
}

Attributes first_attributes(const Recipe& recipe) {
  Attributes attributes = own_attributes(0);
  for (const char* count : {"tokens", "sequences", "sequences_skipped", "optimizer_updates", "layout_zero"})
    attributes[count] = std::int64_t{0};
  for (const char* degree : {"layout_ranks", "layout_tensor", "layout_expert", "layout_expert_tensor"})
    attributes[degree] = std::int64_t{1};
  attributes["recipe"] = to_yaml(recipe);
  return attributes;
}

template <class T>
void add_first(CheckpointStream& stream, const std::vector<NamedState>& states, const std::string& name,
               const Dims& dims, const std::vector<T>& values) {
  stream.add(name, ElementTypeOf<T>::value, dims, values.data());
  const std::string parameter = name.substr(std::strlen("model/"));
  for (const NamedState& state : states)
    stream.add_zeros(group_of(state) + "/" + parameter, element_type(state.values.dtype()), dims);
}

template void add_first(CheckpointStream&, const std::vector<NamedState>&, const std::string&, const Dims&,
                        const std::vector<float>&);
template void add_first(CheckpointStream&, const std::vector<NamedState>&, const std::string&, const Dims&,
                        const std::vector<double>&);

}  // namespace conclave
