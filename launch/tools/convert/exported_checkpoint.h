// ExportedCheckpoint: a checkpoint that is about to be written in another format, whichever that is. It has
// been verified, and hands out one tensor at a time.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "framework/store/checkpoint_file.h"
#include "launch/train/recipe.h"

namespace conclave {

class ExportedCheckpoint {
 public:
  /// Takes a step-... directory, a checkpoints directory or a run directory. `say` is told what was not good
  /// enough there. Throws Fault::data where nothing is, or where the checkpoint does not fit its own recipe.
  ExportedCheckpoint(const std::filesystem::path& path, const std::function<void(const std::string&)>& say);

  const CheckpointReader& reader() const { return reader_; }
  const Recipe& recipe() const { return recipe_; }

  /// Throws Fault::data unless every parameter of the model is there with its shape, and nothing else.
  void check_parameters() const;
  /// Says what training has and no other program's model: rounding of 64 bits, capacities, pools.
  void say_what_is_left_out(const std::function<void(const std::string&)>& say) const;
  /// Returns the numbers of a box of a tensor as float32. A tensor that the run did not have is all zeros.
  std::vector<float> read(const std::string& name, const Box& box) const;

 private:
  CheckpointReader reader_;
  Recipe recipe_;
};

}  // namespace conclave
