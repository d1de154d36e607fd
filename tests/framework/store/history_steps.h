// A small expert history whose numbers say which step of which run they came from.
#pragma once

#include <cstdint>
#include <vector>

#include "framework/store/expert_history_writer.h"

namespace conclave {

inline ExpertHistoryWriter::Options options(std::int64_t resume_step = -1, std::int64_t flush_interval = 4,
                                            std::int64_t expert_ranks = 1) {
  return {.layers = 2,
          .experts = 3,
          .expert_ranks = expert_ranks,
          .domains = {"english", "python"},
          .resume_step = resume_step,
          .flush_interval = flush_interval};
}

/// Rows of these steps, and an evaluation every fifth step.
inline void log_steps(ExpertHistoryWriter& writer, std::int64_t first, std::int64_t last, std::int64_t run) {
  for (std::int64_t step = first; step <= last; ++step) {
    std::vector<std::int64_t> counts(6);
    std::vector<double> probability(6);
    for (std::size_t i = 0; i < 6; ++i) {
      counts[i] = run * 1000000 + step * 10 + static_cast<std::int64_t>(i);
      probability[i] = 0.125 * static_cast<double>(step) + static_cast<double>(i);
    }
    writer.add_step(step, counts, probability, {0.5 * static_cast<double>(step), static_cast<double>(run)});
    if (step % 5 == 0)
      writer.add_evaluation(step, std::vector<std::int64_t>(12, run * 100 + step),
                            std::vector<double>(4, 0.25 * static_cast<double>(step)),
                            std::vector<double>(4, 0.5 + static_cast<double>(run)));
  }
}

}  // namespace conclave
