// With logging.samples: the sequences of each step's global batch, as a line of samples.jsonl.
#include <algorithm>
#include <sstream>
#include <utility>

#include "launch/train/run/observer.h"
#include "parallel/agreement.h"

namespace conclave {
namespace {

class SampleLines : public RunObserver {
 public:
  explicit SampleLines(const RunView& run) : run_(run) {}

  /// Among ranks that share a sequence one tells of it.
  void take(const Batch& batch, std::int64_t first) override {
    if (run_.mesh.axis(Axis::tensor).rank() != 0) return;
    for (const DrawnSequence& one : batch.drawn)
      taken_ += join_text(first++, " ", one.dataset, " ", one.draw, " ", one.sequence, "\n");
  }

  /// Writes what all ranks have taken. A position that two ranks took by mistake stands there twice.
  Wish after_step(const FinishedStep& step) override {
    std::vector<std::pair<std::int64_t, DrawnSequence>> placed;
    for (const std::string& text : all_gather_text(run_.world, std::exchange(taken_, ""))) {
      std::istringstream numbers(text);
      std::int64_t position = 0;
      for (DrawnSequence one; numbers >> position >> one.dataset >> one.draw >> one.sequence;)
        placed.emplace_back(position, one);
    }
    std::stable_sort(placed.begin(), placed.end(),
                     [](const auto& a, const auto& b) { return a.first < b.first; });
    std::vector<DrawnSequence> drawn;
    for (const auto& [position, one] : placed) drawn.push_back(one);
    if (run_.directory != nullptr) run_.directory->write_samples(step.result.step, !step.is_update(), drawn);
    return Wish::nothing;
  }

 private:
  RunView run_;
  std::string taken_;  // by this rank in the step: position, dataset, draw and sequence, a line each
};

}  // namespace

std::unique_ptr<RunObserver> sample_lines(const RunView& run) {
  return run.recipe.logging.samples ? std::make_unique<SampleLines>(run) : nullptr;
}

}  // namespace conclave
