#include "parallel/gradient_reducer.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <unordered_map>

namespace conclave {

GradientReducer::GradientReducer(ParameterSet& parameters, const Mesh& mesh, GradientReducerOptions options)
    : parameters_(parameters), mesh_(mesh), options_(options) {
  check(parameters.gradients().defined(), "GradientReducer: the parameters have not been materialized");
  check(parameters.layout().ranks() == mesh.layout().ranks(), "GradientReducer: parameters cut for ",
        parameters.layout().ranks(), " ranks came with a mesh of ", mesh.layout().ranks());
  plan(options.bucket_bytes);
  plan_ownership();
  plan_norm();
  for (std::size_t b = 0; b < buckets_.size(); ++b) {
    if (buckets_[b].ranks->size() == 1) continue;
    for (std::size_t i = 0; i < buckets_[b].parameters.size(); ++i)
      buckets_[b].parameters[i]->gradient.when_complete([this, b, i] { on_complete(b, i); });
  }
}

GradientReducer::~GradientReducer() {
  for (const Bucket& bucket : buckets_)
    for (const Parameter* parameter : bucket.parameters) parameter->gradient.when_complete({});
}

/// Trainable parameters from the last to the first, because backward completes the last ones first; one
/// bucket is open for each kind of replicas, and it holds either single elements or matrices. The alignment
/// gaps inside a bucket are zero on every rank and stay so.
void GradientReducer::plan(std::int64_t bucket_bytes) {
  std::array<std::ptrdiff_t, axes> open;
  open.fill(-1);
  const auto element = static_cast<std::int64_t>(element_bytes(parameters_.gradients().dtype()));
  for (auto parameter = parameters_.all().rbegin(); parameter != parameters_.all().rend(); ++parameter) {
    std::ptrdiff_t& current = open[static_cast<std::size_t>(parameter->placement.replicas)];
    if (parameter->frozen) {
      current = -1;
      continue;
    }
    const OwnedUnit unit = options_.owned_unit ? options_.owned_unit(*parameter) : OwnedUnit::element;
    if (current < 0 || buckets_[static_cast<std::size_t>(current)].unit != unit) {
      current = static_cast<std::ptrdiff_t>(buckets_.size());
      buckets_.emplace_back();
      buckets_.back().ranks = &mesh_.axis(parameter->placement.replicas);
      buckets_.back().unit = unit;
    }
    Bucket& bucket = buckets_[static_cast<std::size_t>(current)];
    bucket.parameters.push_back(&*parameter);
    bucket.begin = parameter->offset;
    bucket.elements += parameters_.room_of(*parameter);
    if (bucket.elements * element >= bucket_bytes) current = -1;
  }
}

/// Matrices of equal replicas are dealt together, so that they come out even over all buckets.
void GradientReducer::deal_buckets_of_matrices() {
  for (const Axis replicas : {Axis::data, Axis::data_tensor, Axis::expert_data}) {
    std::vector<const Parameter*> parameters;
    std::map<const Parameter*, Bucket*> bucket_of;
    for (auto bucket = buckets_.rbegin(); bucket != buckets_.rend(); ++bucket) {
      if (!shards(*bucket) || scatters(*bucket) || bucket->parameters[0]->placement.replicas != replicas)
        continue;
      for (auto parameter = bucket->parameters.rbegin(); parameter != bucket->parameters.rend();
           ++parameter) {
        parameters.push_back(*parameter);
        bucket_of[*parameter] = &*bucket;
      }
    }
    if (parameters.empty()) continue;
    for (const MatrixRun& run : deal_matrices(parameters, mesh_.axis(replicas).size()))
      bucket_of[run.parameter]->runs.push_back(run);
  }
}

void GradientReducer::plan_ownership() {
  deal_buckets_of_matrices();
  for (Bucket& bucket : buckets_) {
    if (shards(bucket) && !scatters(bucket)) {
      for (const MatrixRun& run : bucket.runs)
        if (run.owner == bucket.ranks->rank()) owned_.push_back({run.parameter, run.offset, run.elements, 0});
      continue;
    }
    std::int64_t begin = bucket.begin, end = bucket.begin + bucket.elements;
    if (scatters(bucket)) {
      begin += bucket.ranks->rank() * bucket.share();
      end = begin + bucket.share();
      bucket.part = Tensor::empty({bucket.share()}, parameters_.gradients().dtype(),
                                  parameters_.gradients().device(), MemoryPurpose::gradients);
    }
    for (const Parameter* parameter : bucket.parameters) {
      const std::int64_t first = std::max(begin, parameter->offset);
      const std::int64_t last = std::min(end, parameter->offset + parameter->shape.elements());
      if (first < last) owned_.push_back({parameter, first, last - first, 0});
    }
  }
  std::unordered_map<const Parameter*, std::size_t> place;
  for (const Parameter& parameter : parameters_.all()) place.emplace(&parameter, place.size());
  std::stable_sort(owned_.begin(), owned_.end(), [&](const OwnedSpan& a, const OwnedSpan& b) {
    return place.at(a.parameter) < place.at(b.parameter);
  });
  for (OwnedSpan& span : owned_) {
    span.state_offset = owned_elements_;
    owned_elements_ += span.elements;
  }
}

void GradientReducer::begin_last_micro_batch() {
  check(!armed_, "GradientReducer: begin_last_micro_batch came twice, finish was expected between");
  armed_ = true;
  for (Bucket& bucket : buckets_) {
    // On an axis of one rank nothing is sent, so nothing is waited for.
    bucket.missing = bucket.ranks->size() == 1 ? 0 : bucket.parameters.size();
    bucket.complete.assign(bucket.parameters.size(), 0);
  }
}

void GradientReducer::on_complete(std::size_t b, std::size_t index) {
  if (!armed_) return;
  check(
      b >= started_, "GradientReducer: rank ", mesh_.world().rank(), " completed the gradient of ",
      buckets_[b].parameters[index]->name,
      " again after its sum over the ranks had started; only one backward may follow begin_last_micro_batch");
  Bucket& bucket = buckets_[b];
  if (!bucket.complete[index]) {
    bucket.complete[index] = 1;
    --bucket.missing;
  }
  while (started_ < buckets_.size() && buckets_[started_].missing == 0 &&
         buckets_[started_].ranks->size() > 1)
    start_next();
  // MPI makes progress when it is asked.
  while (waited_ < started_ && buckets_[waited_].request.test()) ++waited_;
}

void GradientReducer::start_next() {
  Bucket& bucket = buckets_[started_++];
  for (const Parameter* parameter : bucket.parameters) parameter->gradient.finished();
  if (bucket.ranks->size() == 1) return;
  const Tensor gradients = parameters_.gradients().part(bucket.begin, {bucket.elements});
  bucket.request = scatters(bucket)
                       ? bucket.ranks->start_reduce_scatter_rows(gradients, bucket.part, Purpose::gradients)
                       : bucket.ranks->start_all_reduce(gradients, ReduceOp::sum, Purpose::gradients);
}

void GradientReducer::finish() {
  started_early_ = static_cast<int>(started_);
  while (started_ < buckets_.size()) start_next();
  for (Bucket& bucket : buckets_) {
    bucket.request.wait();
    if (scatters(bucket))
      parameters_.gradients()
          .part(bucket.begin + bucket.ranks->rank() * bucket.share(), {bucket.share()})
          .copy_from(bucket.part);
  }
  started_ = waited_ = 0;
  armed_ = false;
}

void GradientReducer::plan_norm() {
  const MeshLayout& layout = mesh_.layout();
  const std::int64_t rank = mesh_.world().rank();
  std::vector<FlatSpan> spans;
  for (const OwnedSpan& span : owned_) {
    const Placement& placement = span.parameter->placement;
    // Of replicas that own the same elements the first counts. Those are the replicas of the placement unless
    // the optimizer is sharded over them, and the tensor ranks for what attention ranks hold whole and sum
    // over data only.
    const bool of_another_replica =
        options_.sharding == OptimizerSharding::none && layout.coordinate(rank, placement.replicas) != 0;
    const bool cut_over_tensor = std::any_of(placement.cuts.begin(), placement.cuts.end(),
                                             [](const Cut& cut) { return cut.axis == Axis::tensor; });
    const bool of_another_tensor_rank =
        placement.replicas == Axis::data && !cut_over_tensor && layout.coordinate(rank, Axis::tensor) != 0;
    spans.push_back({.first = span.offset,
                     .first_state = span.state_offset,
                     .elements = span.elements,
                     .factor = of_another_replica || of_another_tensor_rank ? 0.0 : 1.0});
  }
  counted_ = Pieces::of(spans, parameters_.gradients().device());
}

Tensor GradientReducer::squares() const {
  const Tensor& gradients = parameters_.gradients();
  const Tensor sum = Tensor::empty({1}, DType::float64, gradients.device());
  kernels_of(gradients).sum_of_squares_of_pieces(gradients, counted_, sum);
  return sum;
}

double GradientReducer::norm_of(double squares) const {
  const Tensor sum = Tensor::from(std::vector<double>{squares}, {1});
  mesh_.world().all_reduce(sum, ReduceOp::sum, Purpose::statistics);
  return std::sqrt(sum.item());
}

void GradientReducer::gather(const Tensor& flat) const {
  for (const Bucket& bucket : buckets_) {
    if (!shards(bucket)) continue;
    for (const MatrixRun& run : bucket.runs)
      bucket.ranks->broadcast(flat.part(run.offset, {run.elements}), run.owner, Purpose::parameters);
    if (!scatters(bucket)) continue;
    const Tensor whole = flat.part(bucket.begin, {bucket.elements});
    bucket.ranks->all_gather_rows(
        whole.slice(bucket.ranks->rank() * bucket.share(), (bucket.ranks->rank() + 1) * bucket.share()),
        whole, Purpose::parameters);
  }
}

}  // namespace conclave
