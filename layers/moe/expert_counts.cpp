#include "layers/moe/expert_counts.h"

#include <algorithm>

namespace conclave {
namespace {

using Counts = ExpertCounts::Counts;

void add(Counts& sums, const Counts& counts) {
  for (std::size_t i = 0; i < sums.size(); ++i) sums[i] += counts[i];
}

/// [layers, sequences, experts]
Counts counts_by_sequence(const std::vector<RouterReading>& layers) {
  Counts all;
  for (const RouterReading& layer : layers) all.insert(all.end(), layer.counts.begin(), layer.counts.end());
  return all;
}

/// Hands out parts of one long array in order.
class Parts {
 public:
  explicit Parts(const Counts& all) : next_(all.begin()) {}
  void take(Counts& part) {
    std::copy_n(next_, part.size(), part.begin());
    next_ += static_cast<std::ptrdiff_t>(part.size());
  }

 private:
  Counts::const_iterator next_;
};

}  // namespace

Counts sum_over_sets(const Counts& counts, std::int64_t layers, std::int64_t experts) {
  Counts sums(static_cast<std::size_t>(layers * experts));
  const std::size_t of_layer = counts.size() / static_cast<std::size_t>(std::max<std::int64_t>(layers, 1));
  const auto width = static_cast<std::size_t>(experts);
  for (std::size_t i = 0; i < counts.size(); ++i) sums[i / of_layer * width + i % width] += counts[i];
  return sums;
}

void ExpertCounts::Step::Reduction::start(const Counts& counts, Communicator& ranks) {
  tensor_ = Tensor::from(counts, {static_cast<std::int64_t>(counts.size())});
  request_ = ranks.start_all_reduce(tensor_, ReduceOp::sum, Purpose::statistics);
}

Counts ExpertCounts::Step::Reduction::finish() {
  request_.wait();
  Counts counts = tensor_.to_host<std::int64_t>();
  tensor_ = Tensor();
  return counts;
}

ExpertCounts::ExpertCounts(std::int64_t layers, std::int64_t experts, Communicator& all_tokens,
                           Communicator* micro_batch)
    : layers_(layers),
      experts_(experts),
      all_tokens_(all_tokens),
      micro_batch_(micro_batch != nullptr && micro_batch->size() > 1 ? micro_batch : nullptr) {}

ExpertCounts::Step ExpertCounts::begin_step(const BatchPlace& place, Needs needs) const {
  return Step(*this, place, std::move(needs));
}

ExpertCounts::Step::Step(const ExpertCounts& counts, const BatchPlace& place, Needs needs)
    : of_(counts), place_(place), needs_(std::move(needs)) {
  needs_.all_ranks |= needs_.whole_step && place.micro_steps == 1;
  const auto size = static_cast<std::size_t>(of_.layers_ * of_.experts_);
  own_.assign(size, 0);
  seen_.assign(size, 0);
  ahead_.assign(size, 0);
  sets_ahead_.assign(needs_.sets.size(), {});
  for (std::size_t i = 0; i < needs_.sets.size(); ++i)
    if (!needs_.sets[i]->within_micro_step())
      sets_ahead_[i].assign(size * static_cast<std::size_t>(needs_.sets[i]->sets()), 0);
}

ReadChosen ExpertCounts::Step::reads_chosen() const {
  const bool any = std::any_of(needs_.sets.begin(), needs_.sets.end(),
                               [](const auto& sets) { return sets->reads_chosen() == ReadChosen::yes; });
  return any ? ReadChosen::yes : ReadChosen::no;
}

bool ExpertCounts::Step::needs_counting_pass() const {
  return (needs_.whole_step && place_.micro_steps != 1) ||
         std::any_of(needs_.sets.begin(), needs_.sets.end(),
                     [](const auto& sets) { return !sets->within_micro_step(); });
}

void ExpertCounts::Step::count_ahead(const std::vector<RouterReading>& layers) {
  add(ahead_, sum_over_sets(counts_by_sequence(layers), of_.layers_, of_.experts_));
  for (std::size_t i = 0; i < sets_ahead_.size(); ++i)
    if (!sets_ahead_[i].empty()) needs_.sets[i]->count(micro_steps_ahead_, layers, sets_ahead_[i]);
  ++micro_steps_ahead_;
}

void ExpertCounts::Step::finish_counting_ahead() {
  Counts all = ahead_;
  for (const Counts& counts : sets_ahead_) all.insert(all.end(), counts.begin(), counts.end());
  Reduction reduction;
  reduction.start(all, of_.all_tokens_);
  all = reduction.finish();
  Parts parts(all);
  parts.take(ahead_);
  for (Counts& counts : sets_ahead_) parts.take(counts);
}

ExpertCounts::MicroStep ExpertCounts::Step::begin_micro_step(const std::vector<RouterReading>& layers) {
  check(static_cast<std::int64_t>(layers.size()) == of_.layers_, "ExpertCounts: statistics of ",
        layers.size(), " layers came, expected ", of_.layers_);
  const std::int64_t m = micro_steps_++;
  Known& now = now_;
  now.sequences = layers.empty() ? 0 : layers[0].sequences;
  check(place_.micro_batch_size == 0 || layers.empty() ||
            (now.sequences == place_.micro_batch_size && m < place_.micro_steps),
        "ExpertCounts: micro-step ", m, " with ", now.sequences, " sequences came, expected ",
        place_.micro_steps, " micro-steps of ", place_.micro_batch_size);
  now.by_sequence = counts_by_sequence(layers);
  now.micro_batch = sum_over_sets(now.by_sequence, of_.layers_, of_.experts_);
  now.all_ranks = needs_.all_ranks ? now.micro_batch : Counts();
  add(own_, now.micro_batch);
  now.sets = sets_ahead_;
  for (std::size_t i = 0; i < now.sets.size(); ++i) {
    const TokenSets& sets = *needs_.sets[i];
    if (!sets.within_micro_step()) continue;
    now.sets[i].assign(static_cast<std::size_t>(of_.layers_ * sets.sets() * of_.experts_), 0);
    sets.count(m, layers, now.sets[i]);
  }
  if (of_.layers_ == 0) return MicroStep(*this);
  if (of_.micro_batch_ != nullptr && (needs_.sequences || needs_.micro_batch))
    of_micro_batch_.start(needs_.sequences ? now.by_sequence : now.micro_batch, *of_.micro_batch_);
  Counts all = now.all_ranks;
  for (std::size_t i = 0; i < now.sets.size(); ++i)
    if (needs_.sets[i]->within_micro_step()) all.insert(all.end(), now.sets[i].begin(), now.sets[i].end());
  if (!all.empty()) of_all_.start(all, of_.all_tokens_);
  // Nobody waits for the counts of the step before its end.
  if (!needs_.all_ranks && micro_steps_ == place_.micro_steps) of_step_.start(own_, of_.all_tokens_);
  return MicroStep(*this);
}

const ExpertCounts::Known& ExpertCounts::MicroStep::counts() {
  const ExpertCounts& of = step_.of_;
  const Needs& needs = step_.needs_;
  Known& now = step_.now_;
  if (step_.of_micro_batch_.started()) {
    if (needs.sequences) {
      now.by_sequence = step_.of_micro_batch_.finish();
      now.micro_batch = sum_over_sets(now.by_sequence, of.layers_, of.experts_);
    } else {
      now.micro_batch = step_.of_micro_batch_.finish();
    }
  }
  if (step_.of_all_.started()) {
    const Counts all = step_.of_all_.finish();
    Parts parts(all);
    parts.take(now.all_ranks);
    for (std::size_t i = 0; i < now.sets.size(); ++i)
      if (needs.sets[i]->within_micro_step()) parts.take(now.sets[i]);
    if (needs.all_ranks) add(step_.seen_, now.all_ranks);
  }
  return now;
}

Counts ExpertCounts::Step::end() {
  if (needs_.all_ranks) return seen_;
  if (!of_step_.started()) of_step_.start(own_, of_.all_tokens_);
  return of_step_.finish();
}

}  // namespace conclave
