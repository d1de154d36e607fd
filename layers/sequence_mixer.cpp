#include "layers/sequence_mixer.h"

#include "layers/attention.h"

namespace conclave {

std::unique_ptr<SequenceMixer> make_sequence_mixer(ParameterSet& parameters, const std::string& block,
                                                   std::int64_t index, const TransformerRecipe& model,
                                                   const InitialRange& range,
                                                   const Parallelism& parallelism) {
  return std::make_unique<Attention>(parameters, block + ".self_attn", model, index, range, parallelism);
}

}  // namespace conclave
