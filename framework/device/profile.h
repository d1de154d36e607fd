// Profile tells where the time of training steps goes, by layer, purpose and phase. While one is active,
// kernels and waits report the time they took; otherwise that costs one comparison. Layers say where the
// program is by a ProfileLayer and a ProfilePurpose on the stack; the tape remembers it for backward. Only
// the thread that calls kernels reports.
#pragma once

#include <array>
#include <chrono>
#include <compare>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "framework/device/named_range.h"

namespace conclave {

class Profile {
 public:
  using Clock = std::chrono::steady_clock;
  enum class Phase { other, forward, recompute, backward };
  static constexpr int phases = 4;
  enum class Kind { kernel, wait };

  /// Says where in the model the program is.
  struct Place {
    int layer = 0;             // of layers()
    const char* purpose = "";  // a literal; empty outside of any
    std::strong_ordering operator<=>(const Place& other) const {
      return std::tuple(layer, std::string_view(purpose)) <=>
             std::tuple(other.layer, std::string_view(other.purpose));
    }
  };
  /// The least that a kernel moves and computes.
  struct Work {
    double bytes = 0;
    double operations = 0;    // floating-point; 0 where bytes are what counts
    double exponentials = 0;  // likewise
  };
  struct Key {
    Place place;
    Phase phase;
    Kind kind;
    std::string_view what;  // a literal: the kernel, or the purpose of a collective
    std::strong_ordering operator<=>(const Key&) const = default;
  };
  struct Sum {
    std::int64_t calls = 0;
    double seconds = 0, bytes = 0, operations = 0, exponentials = 0;
  };
  struct Event {
    Key key;
    Clock::time_point begin, end;
  };

  Profile() = default;
  Profile(const Profile&) = delete;
  Profile& operator=(const Profile&) = delete;
  static Profile* active() { return active_; }

  /// While this lives, reports come to the profile. A process has one at a time.
  class Recording {
   public:
    explicit Recording(Profile& profile);
    ~Recording();
    Recording(const Recording&) = delete;
    Recording& operator=(const Recording&) = delete;
  };

  void add(Kind kind, const char* what, Clock::time_point begin, Clock::time_point end, Work work);
  /// Wall time from here on belongs to this phase.
  void enter(Phase phase);
  /// Keeps single events from here on, at most so many in all; 0 ends it.
  void keep_events(std::size_t most) { most_events_ = most; }
  /// Forgets sums and phases, not events.
  void clear();

  const std::vector<std::string>& layers() const { return layers_; }
  const std::map<Key, Sum>& sums() const { return sums_; }
  /// Wall time by Phase since clear(), up to the last enter().
  const std::array<double, phases>& phase_seconds() const { return phase_seconds_; }
  const std::vector<Event>& events() const { return events_; }

 private:
  friend class ProfileLayer;
  friend class ProfilePurpose;
  friend class ProfilePlace;
  friend class ProfilePhase;
  static Profile* active_;

  int number_of(const std::string& layer);

  std::vector<std::string> layers_{""};
  Place place_;
  Phase phase_ = Phase::other;
  Clock::time_point phase_begin_ = Clock::now();
  std::array<double, phases> phase_seconds_{};
  std::map<Key, Sum> sums_;
  std::vector<Event> events_;
  std::size_t most_events_ = 0;
};

const char* name_of(Profile::Phase phase);

// Each of these classes restores on leaving what it found. Names must outlive them. Layers, purposes and
// phases are named ranges as well, for the profilers of a GPU.

class ProfilePlace {
 public:
  explicit ProfilePlace(Profile::Place place);
  ~ProfilePlace();
  ProfilePlace(const ProfilePlace&) = delete;
  ProfilePlace& operator=(const ProfilePlace&) = delete;

  /// The current place, for backward to come back to.
  static Profile::Place current() {
    return Profile::active() != nullptr ? Profile::active()->place_ : Profile::Place{};
  }

 private:
  Profile* profile_;
  Profile::Place before_;
};

class ProfilePhase {
 public:
  explicit ProfilePhase(Profile::Phase phase);
  ~ProfilePhase();
  ProfilePhase(const ProfilePhase&) = delete;
  ProfilePhase& operator=(const ProfilePhase&) = delete;

 private:
  NamedRange range_;
  Profile* profile_;
  Profile::Phase before_ = Profile::Phase::other;
};

/// Names the layer from here on, whatever the purpose.
class ProfileLayer {
 public:
  explicit ProfileLayer(const char* layer);
  ~ProfileLayer();
  ProfileLayer(const ProfileLayer&) = delete;
  ProfileLayer& operator=(const ProfileLayer&) = delete;

 private:
  NamedRange range_;
  Profile* profile_;
  Profile::Place before_;
};

/// Names the purpose from here on, inside the same layer. `purpose` is a literal.
class ProfilePurpose {
 public:
  explicit ProfilePurpose(const char* purpose);
  ~ProfilePurpose();
  ProfilePurpose(const ProfilePurpose&) = delete;
  ProfilePurpose& operator=(const ProfilePurpose&) = delete;

 private:
  NamedRange range_;
  Profile* profile_;
  Profile::Place before_;
};

}  // namespace conclave
