#include "launch/tools/convert/windows.h"

#include <algorithm>
#include <string>

#include "framework/store/json_text.h"

namespace conclave {
namespace {

bool is_one_of(const std::string& type, std::initializer_list<const char*> types) {
  return std::find(types.begin(), types.end(), type) != types.end();
}

/// The kinds of attention of the blocks, which some classes follow.
enum class Listed { nothing, all_whole, some_with_window };
Listed listed_in(const ConfigReader& config) {
  if (!config.has("layer_types")) return Listed::nothing;
  if (!config.json()["layer_types"].is_array())
    config.refuse("layer_types: ", text_of(config.json()["layer_types"]), " came, expected a list.");
  Listed listed = Listed::all_whole;
  for (const nlohmann::json& kind : config.json()["layer_types"]) {
    if (kind == "sliding_attention")
      listed = Listed::some_with_window;
    else if (kind != "full_attention")
      config.refuse("layer_types has ", text_of(kind),
                    ", expected full_attention, or sliding_attention with a window: Conclave has no other "
                    "attention.");
  }
  return listed;
}

}  // namespace

std::optional<std::int64_t> window_of(const ConfigReader& config) {
  const Listed listed = listed_in(config);
  const std::string type = config.text_or("model_type", ""), key = "sliding_window";
  if (is_one_of(type, {"qwen2", "qwen3", "qwen3_moe", "smollm3"}) &&
      !config.flag_or("use_sliding_window", false))
    return {};
  const bool follows_list =
      is_one_of(type, {"qwen2", "qwen3", "smollm3", "ministral", "exaone_moe", "dots1"});
  if (follows_list && listed == Listed::all_whole) return {};
  if (config.has(key)) return config.whole(key);
  // Some classes have a window unless they are told that they have none.
  if (!config.json().contains(key) && is_one_of(type, {"mistral", "ministral"})) return 4096;
  if (listed == Listed::some_with_window)
    config.refuse("layer_types has sliding_attention, but sliding_window does not say how wide it is.");
  return {};
}

}  // namespace conclave
