// SmolLM3ForCausalLM: Llama's mathematics; in some blocks positions turn nothing (NoPE).
#include "framework/base/error.h"
#include "launch/tools/convert/origin.h"
#include "launch/tools/convert/rotary_config.h"

namespace conclave {
namespace {

/// The list has an entry for each block, which is 1 where positions turn, in spite of its name.
void read_config(const ConfigReader& config, ModelRecipe& m) {
  read_dense_keys(config, m);
  m.tie_word_embeddings = config.flag_or("tie_word_embeddings", true);
  if (!read_whole_rotary_config(config).theta) config.refuse("the key rope_theta is missing.");
  const std::vector<std::int64_t> turns = config.wholes_or_none("no_rope_layers");
  const std::int64_t interval =
      config.has("no_rope_layer_interval") ? config.whole("no_rope_layer_interval") : 4;
  if (!turns.empty() && static_cast<std::int64_t>(turns.size()) != m.num_hidden_layers)
    config.refuse("no_rope_layers has ", turns.size(), " entries, expected one for each of the ",
                  m.num_hidden_layers, " blocks.");
  if (turns.empty() && m.num_hidden_layers > 1'000'000)
    config.refuse("num_hidden_layers: ", m.num_hidden_layers, " blocks came, expected at most 1000000.");
  for (std::int64_t block = 0; block < m.num_hidden_layers; ++block)
    if (turns.empty() ? (block + 1) % interval == 0 : turns[static_cast<std::size_t>(block)] == 0)
      m.no_rope_layers.push_back(block);
}

}  // namespace

const Origin smollm3{.model_type = "smollm3",
                     .class_name = "SmolLM3ForCausalLM",
                     .architecture = llama,
                     .read_config = read_config};

}  // namespace conclave
