// Finite values: NaN or infinity in a checkpoint would make every step after it as wrong. So such a state is
// never written, and never read without a word.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "framework/store/hdf5_file.h"

namespace conclave {

class CheckpointReader;

/// The place of the first element that is NaN or infinite; none in a type of whole numbers.
std::optional<std::int64_t> first_not_finite(ElementType type, const void* data, std::int64_t elements);

/// The place of the first element that must not be in this tensor of a checkpoint: NaN or infinity. A second
/// moment may be infinite, as its element only stops moving and nothing else becomes wrong. NaN would spread.
std::optional<std::int64_t> first_bad_value(const std::string& tensor, ElementType type, const void* data,
                                            std::int64_t elements);

/// A FiniteCheck names a tensor, and says what to do when its values are not finite.
struct FiniteCheck {
  std::string place;  // "Checkpoint runs/x/...", "the state after step 7"
  std::string tensor;
  std::string advice{};  // a sentence
};

/// Fault::numeric where first_bad_value finds one.
void check_finite(const FiniteCheck& what, ElementType type, const void* data, std::int64_t elements);

/// The tensors of a checkpoint with values that are not finite, by name. Reads all of them, in blocks.
std::vector<std::string> tensors_not_finite(const CheckpointReader& checkpoint);

}  // namespace conclave
