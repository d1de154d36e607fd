// MistralForCausalLM and MinistralForCausalLM: Llama's mathematics with a window (windows.h). Their attention
// has no biases, whatever a config.json says.
#include "launch/tools/convert/origin.h"
#include "launch/tools/convert/rotary_config.h"

namespace conclave {
namespace {

void read_config(const ConfigReader& config, ModelRecipe& m) {
  read_dense_keys(config, m);
  read_whole_rotary_config(config);
  m.attention_bias = AttentionBias::none;
}

}  // namespace

const Origin mistral{.model_type = "mistral",
                     .class_name = "MistralForCausalLM",
                     .architecture = llama,
                     .read_config = read_config};
const Origin ministral{.model_type = "ministral",
                       .class_name = "MinistralForCausalLM",
                       .architecture = llama,
                       .read_config = read_config};

}  // namespace conclave
