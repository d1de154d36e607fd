#include "framework/device/profile.h"

#include "framework/base/error.h"

namespace conclave {
namespace {

double seconds_between(Profile::Clock::time_point begin, Profile::Clock::time_point end) {
  return std::chrono::duration<double>(end - begin).count();
}

}  // namespace

Profile* Profile::active_ = nullptr;

const char* name_of(Profile::Phase phase) {
  switch (phase) {
    case Profile::Phase::other:
      return "other";
    case Profile::Phase::forward:
      return "forward";
    case Profile::Phase::recompute:
      return "recompute";
    case Profile::Phase::backward:
      return "backward";
  }
  return "unknown";
}

Profile::Recording::Recording(Profile& profile) {
  check(active_ == nullptr, "Profile: another one is active in this process");
  active_ = &profile;
  profile.phase_begin_ = Clock::now();
}

Profile::Recording::~Recording() {
  active_->enter(Phase::other);
  active_ = nullptr;
}

void Profile::add(Kind kind, const char* what, Clock::time_point begin, Clock::time_point end, Work work) {
  const Key key{place_, phase_, kind, what};
  Sum& sum = sums_[key];
  ++sum.calls;
  sum.seconds += seconds_between(begin, end);
  sum.bytes += work.bytes;
  sum.operations += work.operations;
  sum.exponentials += work.exponentials;
  if (events_.size() < most_events_) events_.push_back({key, begin, end});
}

void Profile::enter(Phase phase) {
  const Clock::time_point now = Clock::now();
  phase_seconds_[static_cast<std::size_t>(phase_)] += seconds_between(phase_begin_, now);
  phase_begin_ = now;
  phase_ = phase;
}

void Profile::clear() {
  sums_.clear();
  phase_seconds_ = {};
}

int Profile::number_of(const std::string& layer) {
  for (std::size_t i = 0; i < layers_.size(); ++i)
    if (layers_[i] == layer) return static_cast<int>(i);
  layers_.push_back(layer);
  return static_cast<int>(layers_.size()) - 1;
}

ProfilePlace::ProfilePlace(Profile::Place place) : profile_(Profile::active()), before_(current()) {
  if (profile_ != nullptr) profile_->place_ = place;
}

ProfilePlace::~ProfilePlace() {
  if (profile_ != nullptr) profile_->place_ = before_;
}

ProfilePhase::ProfilePhase(Profile::Phase phase) : range_(name_of(phase)), profile_(Profile::active()) {
  if (profile_ == nullptr) return;
  before_ = profile_->phase_;
  profile_->enter(phase);
}

ProfilePhase::~ProfilePhase() {
  if (profile_ != nullptr) profile_->enter(before_);
}

ProfileLayer::ProfileLayer(const char* layer)
    : range_(layer), profile_(Profile::active()), before_(ProfilePlace::current()) {
  if (profile_ != nullptr) profile_->place_.layer = profile_->number_of(layer);
}

ProfileLayer::~ProfileLayer() {
  if (profile_ != nullptr) profile_->place_ = before_;
}

ProfilePurpose::ProfilePurpose(const char* purpose)
    : range_(purpose), profile_(Profile::active()), before_(ProfilePlace::current()) {
  if (profile_ != nullptr) profile_->place_.purpose = purpose;
}

ProfilePurpose::~ProfilePurpose() {
  if (profile_ != nullptr) profile_->place_ = before_;
}

}  // namespace conclave
