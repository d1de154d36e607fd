// GradientReducer: sums the gradients of a ParameterSet over the ranks of an axis, bucket by bucket, while
// backward still computes the rest. Sums and never averages: losses are divided by global totals before
// backward. Buckets start in one fixed order, last parameters first, whatever the tape of a rank does, so
// they always meet the same bucket of the other ranks; an unfinished bucket holds back those after it.
#pragma once

#include <cstdint>
#include <vector>

#include "parallel/communicator.h"
#include "parallel/parameter.h"

namespace conclave {

struct GradientReducerOptions {
  std::int64_t bucket_bytes = std::int64_t{4} << 20;  // a bucket is closed when it holds this much
};

class GradientReducer {
 public:
  /// After ParameterSet::materialize(), and after Parameter::frozen has been decided: frozen parameters are
  /// neither sent nor zeroed. Keeps references to both.
  GradientReducer(ParameterSet& parameters, Communicator& data, GradientReducerOptions options = {});
  ~GradientReducer();
  GradientReducer(const GradientReducer&) = delete;
  GradientReducer& operator=(const GradientReducer&) = delete;

  /// The next backward is the last of this step: gradients that it completes may be sent.
  void begin_last_micro_batch();

  /// After the last backward: sends what has not been sent and waits. Then every trainable gradient is the
  /// sum over the ranks, zeros where no rank contributed. Collective.
  void finish();

  int buckets() const { return static_cast<int>(buckets_.size()); }
  /// How many buckets of the last finished step were on their way before finish(): what backward could hide.
  int started_early() const { return started_early_; }

 private:
  struct Bucket {
    Tensor gradients;  // [elements], a slice of ParameterSet::gradients()
    std::vector<const Parameter*> parameters;
    std::vector<char> complete;  // per parameter
    std::size_t missing = 0;
    Request request;
  };

  void plan(std::int64_t bucket_bytes);
  void on_complete(std::size_t bucket, std::size_t index);
  void start_next();

  ParameterSet& parameters_;
  Communicator& data_;
  std::vector<Bucket> buckets_;  // in the order of starting
  std::size_t started_ = 0;
  std::size_t waited_ = 0;  // requests before this one are known to be complete
  bool armed_ = false;
  int started_early_ = 0;
};

}  // namespace conclave
