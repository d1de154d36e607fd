#include "framework/kernels/pieces.h"

#include <algorithm>

namespace conclave {

Pieces Pieces::of(const std::vector<FlatSpan>& spans, Device& device) {
  std::vector<std::int64_t> table;
  std::vector<double> settings;
  for (const FlatSpan& span : spans)
    for (std::int64_t begin = 0; begin < span.elements; begin += most_elements) {
      table.insert(table.end(), {span.first + begin, span.first_state + begin,
                                 std::min(most_elements, span.elements - begin)});
      settings.insert(settings.end(), {span.factor, span.weight_decay});
    }
  const auto pieces = static_cast<std::int64_t>(table.size()) / 3;
  return {Tensor::from(table, {pieces, 3}, device), Tensor::from(settings, {pieces, 2}, device)};
}

}  // namespace conclave
