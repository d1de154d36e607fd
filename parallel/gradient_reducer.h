// GradientReducer: sums the gradients of a ParameterSet over each parameter's replicas, bucket by bucket,
// while backward still computes the rest, and says which elements this rank then owns. Sums and never
// averages: losses are divided by global totals before backward. Without optimizer sharding every replica
// receives and owns the whole sum. With it (ZeRO stage 1, Rajbhandari et al., arXiv 1910.02054) each bucket
// is reduce-scattered, a replica owns its part of each bucket, keeps optimizer states for that part alone,
// and the updated values are gathered after the step. Where the optimizer needs whole matrices, their buckets
// are all-reduced, and each replica owns matrices instead of an even part. Buckets start in one fixed order,
// last parameters first, whatever the tape of a rank does, so they always meet the same bucket of the other
// ranks; an unfinished bucket holds back those after it.
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
  /// After ParameterSet::materialize(), and after Parameter::frozen has been decided: frozen parameters are
  /// neither sent nor zeroed nor owned. Keeps references to both.
  GradientReducer(ParameterSet& parameters, const Mesh& mesh, GradientReducerOptions options = {});
  ~GradientReducer();
  GradientReducer(const GradientReducer&) = delete;
  GradientReducer& operator=(const GradientReducer&) = delete;

  /// The next backward is the last of this step: gradients that it completes may be sent.
  void begin_last_micro_batch();

  /// After the last backward: sends what has not been sent and waits. Then every owned element of
  /// ParameterSet::gradients() is the sum over the replicas, zero where none contributed. Collective.
  void finish();

  /// In the order of ParameterSet::all().
  const std::vector<OwnedSpan>& owned() const { return owned_; }
  std::int64_t owned_elements() const { return owned_elements_; }
  /// Whether replicas own different elements; otherwise each owns all of its part.
  bool shards_states() const { return options_.sharding == OptimizerSharding::zero1; }
  /// This rank's part of the sum of squares of all trainable gradients of the model, in which each element
  /// counts once however it is cut or replicated: float64 [1] on the gradients' device; after finish().
  Tensor squares() const;
  /// The Euclidean norm of these gradients from every rank's part. Collective over all ranks.
  double norm_of(double squares) const;
  /// After the owned values have changed: brings everybody's. Collective.
  void gather_values() const {
    gather(parameters_.values());
    parameters_.round_values();
  }
  /// Fills a flat buffer [ParameterSet::elements()] with everybody's owned elements; the owned ones are in
  /// place already. Collective.
  void gather(const Tensor& flat) const;

  int buckets() const { return static_cast<int>(buckets_.size()); }
  /// How many buckets of the last finished step were on their way before finish(): what backward could hide.
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
    Tensor part;                  // of single elements: [elements / replicas]; what a reduce-scatter brings
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
