// GradientReducer sums the gradients of a ParameterSet over each parameter's replicas, and says which
// elements this rank then owns. It does so bucket by bucket, while backward still computes the rest. It sums
// and never averages, since losses are divided by global totals before backward.
//
// Without optimizer sharding every replica receives and owns the whole sum. With it (ZeRO stage 1,
// Rajbhandari et al., arXiv 1910.02054) each bucket is reduce-scattered, and a replica owns its part of each
// bucket. It keeps optimizer states for that part alone, and the updated values are gathered after the step.
// Where the optimizer needs whole matrices, their buckets are all-reduced, and each replica owns matrices
// instead of an even part.
//
// Buckets start in one fixed order, last parameters first, whatever the tape of a rank does. So they always
// meet the same bucket of the other ranks, and an unfinished bucket holds back those after it.
#pragma once

#include <cstdint>
#include <vector>

#include "parallel/communicator.h"
#include "parallel/ownership.h"
#include "parallel/parameter.h"

namespace conclave {

enum class OptimizerSharding { none, zero1 };

struct GradientReducerOptions {
  std::int64_t bucket_bytes = std::int64_t{4} << 20;  // a bucket is closed when it holds this much
  OptimizerSharding sharding = OptimizerSharding::none;
  OwnedUnitOf owned_unit{};  // with sharding: what the optimizer needs undivided
};

class GradientReducer {
 public:
  /// Call it after ParameterSet::materialize(), and after Parameter::frozen has been decided: frozen
  /// parameters are neither sent nor zeroed nor owned. It keeps references to both arguments.
  GradientReducer(ParameterSet& parameters, const Mesh& mesh, GradientReducerOptions options = {});
  ~GradientReducer();
  GradientReducer(const GradientReducer&) = delete;
  GradientReducer& operator=(const GradientReducer&) = delete;

  /// Says that the next backward is the last of this step, so gradients that it completes may be sent.
  void begin_last_micro_batch();

  /// Sends what has not been sent after the last backward, and waits. Then every owned element of
  /// ParameterSet::gradients() is the sum over the replicas, zero where none contributed. Collective.
  void finish();

  /// The spans are in the order of ParameterSet::all().
  const std::vector<OwnedSpan>& owned() const { return owned_; }
  std::int64_t owned_elements() const { return owned_elements_; }
  /// True where replicas own different elements; otherwise each replica owns all of its part.
  bool shards_states() const { return options_.sharding == OptimizerSharding::zero1; }
  /// Returns this rank's part of the sum of squares of all trainable gradients of the model, after finish().
  /// Each element counts once, however it is cut or replicated. The result is float64 [1] on the gradients'
  /// device.
  Tensor squares() const;
  /// Returns the Euclidean norm of these gradients from every rank's part. Collective over all ranks.
  double norm_of(double squares) const;
  /// Brings the values of every rank after the owned ones have changed. Collective.
  void gather_values() const {
    gather(parameters_.values());
    parameters_.round_values();
  }
  /// Fills a flat buffer [ParameterSet::elements()] with the owned elements of every rank; this rank's own
  /// are in place already. Collective.
  void gather(const Tensor& flat) const;

  int buckets() const { return static_cast<int>(buckets_.size()); }
  /// Counts the buckets of the last finished step that were on their way before finish(), which backward
  /// could hide.
  int started_early() const { return started_early_; }

 private:
  struct Bucket {
    Communicator* ranks = nullptr;         // the replicas
    std::int64_t begin = 0, elements = 0;  // of the flat buffers; divides over the replicas
    std::vector<const Parameter*> parameters;
    std::vector<char> complete;  // per parameter
    std::size_t missing = 0;
    Request request;
    OwnedUnit unit = OwnedUnit::element;
    Tensor part;                  // of single elements, from a reduce-scatter: [elements / replicas]
    std::vector<MatrixRun> runs;  // of matrices: who owns which
    std::int64_t share() const { return elements / ranks->size(); }
  };

  void plan(std::int64_t bucket_bytes);
  void plan_ownership();
  void deal_buckets_of_matrices();
  void plan_norm();
  void on_complete(std::size_t bucket, std::size_t index);
  void start_next();
  bool shards(const Bucket& bucket) const {
    return options_.sharding == OptimizerSharding::zero1 && bucket.ranks->size() > 1;
  }
  bool scatters(const Bucket& bucket) const { return shards(bucket) && bucket.unit == OwnedUnit::element; }

  ParameterSet& parameters_;
  const Mesh& mesh_;
  GradientReducerOptions options_;
  std::vector<Bucket> buckets_;  // in the order of starting
  std::vector<OwnedSpan> owned_;
  std::int64_t owned_elements_ = 0;
  Pieces counted_;  // what this rank owns, with factor 0 where the norm counts it on another
  std::size_t started_ = 0;
  std::size_t waited_ = 0;  // requests before this one are known to be complete
  bool armed_ = false;
  int started_early_ = 0;
};

}  // namespace conclave
