#include "parallel/gradient_reducer.h"

namespace conclave {

GradientReducer::GradientReducer(ParameterSet& parameters, Communicator& data, GradientReducerOptions options)
    : parameters_(parameters), data_(data) {
  check(parameters.gradients().defined(), "GradientReducer: the parameters have not been materialized");
  plan(options.bucket_bytes);
  if (data_.size() == 1) return;
  for (std::size_t b = 0; b < buckets_.size(); ++b)
    for (std::size_t i = 0; i < buckets_[b].parameters.size(); ++i)
      buckets_[b].parameters[i]->gradient.when_complete([this, b, i] { on_complete(b, i); });
}

GradientReducer::~GradientReducer() {
  for (const Bucket& bucket : buckets_)
    for (const Parameter* parameter : bucket.parameters) parameter->gradient.when_complete({});
}

/// Consecutive trainable parameters from the last to the first, because backward completes the last ones
/// first. The alignment gaps inside a bucket are zero on every rank and stay so.
void GradientReducer::plan(std::int64_t bucket_bytes) {
  bool open = false;
  std::int64_t end = 0;
  const auto element = static_cast<std::int64_t>(element_bytes(parameters_.gradients().dtype()));
  for (auto parameter = parameters_.all().rbegin(); parameter != parameters_.all().rend(); ++parameter) {
    if (parameter->frozen) {
      open = false;
      continue;
    }
    if (!open) {
      buckets_.emplace_back();
      end = parameter->offset + parameter->shape.elements();
    }
    Bucket& bucket = buckets_.back();
    bucket.parameters.push_back(&*parameter);
    bucket.gradients = parameters_.gradients().part(parameter->offset, {end - parameter->offset});
    open = (end - parameter->offset) * element < bucket_bytes;
  }
}

void GradientReducer::begin_last_micro_batch() {
  check(!armed_, "GradientReducer: begin_last_micro_batch came twice, finish was expected between");
  armed_ = true;
  for (Bucket& bucket : buckets_) {
    bucket.missing = bucket.parameters.size();
    bucket.complete.assign(bucket.parameters.size(), 0);
  }
}

void GradientReducer::on_complete(std::size_t b, std::size_t index) {
  if (!armed_) return;
  check(
      b >= started_, "GradientReducer: rank ", data_.rank(), " completed the gradient of ",
      buckets_[b].parameters[index]->name,
      " again after its sum over the ranks had started; only one backward may follow begin_last_micro_batch");
  Bucket& bucket = buckets_[b];
  if (!bucket.complete[index]) {
    bucket.complete[index] = 1;
    --bucket.missing;
  }
  while (started_ < buckets_.size() && buckets_[started_].missing == 0) start_next();
  // MPI makes progress when it is asked.
  while (waited_ < started_ && buckets_[waited_].request.test()) ++waited_;
}

void GradientReducer::start_next() {
  Bucket& bucket = buckets_[started_++];
  for (const Parameter* parameter : bucket.parameters) parameter->gradient.finished();
  bucket.request = data_.start_all_reduce(bucket.gradients, ReduceOp::sum, Purpose::gradients);
}

void GradientReducer::finish() {
  started_early_ = static_cast<int>(started_);
  if (data_.size() == 1) {
    for (const Bucket& bucket : buckets_)
      for (const Parameter* parameter : bucket.parameters) parameter->gradient.finished();
  } else {
    while (started_ < buckets_.size()) start_next();
    for (Bucket& bucket : buckets_) bucket.request.wait();
  }
  started_ = waited_ = 0;
  armed_ = false;
}

}  // namespace conclave
