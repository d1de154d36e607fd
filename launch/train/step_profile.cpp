#include "launch/train/step_profile.h"

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "framework/base/error.h"

namespace conclave {
namespace {

using Json = nlohmann::json;
using Phase = Profile::Phase;

constexpr std::int64_t traced_steps = 3;
constexpr std::size_t most_events = 20000;
constexpr int traced_ranks = 8;

__attribute__((format(printf, 1, 2))) std::string line(const char* format, ...) {
  char text[256];
  va_list values;
  va_start(values, format);
  std::vsnprintf(text, sizeof(text), format, values);
  va_end(values);
  return text;
}

struct ByPhase {
  std::array<double, Profile::phases> seconds{};
  double sum() const {
    double all = 0;
    for (const double part : seconds) all += part;
    return all;
  }
};

/// "name  forward  recompute  backward  other  share" in milliseconds per step.
std::string phase_row(const std::string& name, const ByPhase& row, double steps, double step_seconds) {
  const auto ms = [&](Phase phase) { return 1e3 * row.seconds[static_cast<std::size_t>(phase)] / steps; };
  return line("%-44s %10.3f %10.3f %10.3f %10.3f %8.1f %%\n", name.c_str(), ms(Phase::forward),
              ms(Phase::recompute), ms(Phase::backward), ms(Phase::other),
              100 * row.sum() / steps / step_seconds);
}

std::string place_name(const std::string& layer, const std::string& purpose) {
  if (layer.empty()) return "outside of layers";
  return purpose.empty() ? layer : layer + "  " + purpose;
}

std::string by_place(const Profile& profile, double steps, double step_seconds) {
  std::map<Profile::Place, ByPhase> rows;
  std::map<std::string_view, ByPhase> waits;
  ByPhase rest;
  rest.seconds = profile.phase_seconds();
  for (const auto& [key, sum] : profile.sums()) {
    const auto phase = static_cast<std::size_t>(key.phase);
    if (key.kind == Profile::Kind::wait)
      waits[key.what].seconds[phase] += sum.seconds;
    else
      rows[key.place].seconds[phase] += sum.seconds;
    rest.seconds[phase] -= sum.seconds;
  }
  std::string text = line("%-44s %10s %10s %10s %10s %10s\n", "ms per step", "forward", "recompute",
                          "backward", "other", "share");
  for (const auto& [place, row] : rows)
    text += phase_row(place_name(profile.layers()[static_cast<std::size_t>(place.layer)], place.purpose), row,
                      steps, step_seconds);
  for (const auto& [purpose, row] : waits)
    text += phase_row("waiting for " + std::string(purpose), row, steps, step_seconds);
  return text + phase_row("between kernels", rest, steps, step_seconds);
}

std::string by_kernel(const Profile& profile, double steps, double step_seconds, const MachineRates& rates) {
  std::map<std::string_view, Profile::Sum> kernels;
  for (const auto& [key, sum] : profile.sums()) {
    if (key.kind != Profile::Kind::kernel) continue;
    Profile::Sum& all = kernels[key.what];
    all.calls += sum.calls;
    all.seconds += sum.seconds;
    all.bytes += sum.bytes;
    all.operations += sum.operations;
  }
  std::vector<std::pair<std::string_view, Profile::Sum>> sorted(kernels.begin(), kernels.end());
  std::stable_sort(sorted.begin(), sorted.end(),
                   [](const auto& a, const auto& b) { return a.second.seconds > b.second.seconds; });
  const bool timed = rates.bytes > 0;
  std::string text = line("%-28s %10s %12s %10s", "kernel", "calls/step", "ms per step", "share") +
                     (timed ? line(" %10s %10s %10s\n", "GB/s", "GFLOP/s", "of limit") : "\n");
  for (const auto& [name, sum] : sorted) {
    text += line("%-28.*s %10.1f %12.3f %8.1f %%", static_cast<int>(name.size()), name.data(),
                 static_cast<double>(sum.calls) / steps, 1e3 * sum.seconds / steps,
                 100 * sum.seconds / steps / step_seconds);
    // It can be no faster than its bytes through memory, nor than its operations at the products' rate.
    if (timed)
      text += line(" %10.2f %10.2f %10.2f", sum.bytes / sum.seconds / 1e9, sum.operations / sum.seconds / 1e9,
                   std::max(sum.bytes / rates.bytes, sum.operations / rates.operations) / sum.seconds);
    text += "\n";
  }
  return text;
}

std::string limits_text(const MachineRates& rates) {
  if (rates.bytes == 0) return "\nKernels are queued on this device: times are those of queueing them.\n\n";
  return line(
      "\nLimits measured on this rank: %.1f GFLOP/s in matrix products, %.2f GB/s of memory.\n"
      "Above 1 of the limit: from the caches.\n\n",
      rates.operations / 1e9, rates.bytes / 1e9);
}

}  // namespace

std::string profile_table(const Profile& profile, std::int64_t steps, double step_seconds,
                          const MachineRates& rates) {
  const auto count = static_cast<double>(steps);
  return line("Rank 0, mean of %lld steps of %.3f ms.\n\n", static_cast<long long>(steps),
              1e3 * step_seconds) +
         by_place(profile, count, step_seconds) + limits_text(rates) +
         by_kernel(profile, count, step_seconds, rates);
}

std::string trace_events(const Profile& profile, int rank, Profile::Clock::time_point zero) {
  const auto microseconds = [](Profile::Clock::duration time) {
    return std::chrono::duration<double, std::micro>(time).count();
  };
  Json events = Json::array();
  const auto name = [&](const char* what, int thread, const std::string& value) {
    events.push_back(
        {{"ph", "M"}, {"name", what}, {"pid", rank}, {"tid", thread}, {"args", {{"name", value}}}});
  };
  constexpr int of_kernels = 0, of_waits = 1;
  name("process_name", of_kernels, join_text("rank ", rank));
  name("thread_name", of_kernels, "kernels");
  name("thread_name", of_waits, "waiting");
  for (const Profile::Event& event : profile.events()) {
    const Profile::Key& key = event.key;
    events.push_back({{"ph", "X"},
                      {"pid", rank},
                      {"tid", key.kind == Profile::Kind::wait ? of_waits : of_kernels},
                      {"ts", microseconds(event.begin - zero)},
                      {"dur", microseconds(event.end - event.begin)},
                      {"name", std::string(key.what)},
                      {"cat", name_of(key.phase)},
                      {"args",
                       {{"layer", profile.layers()[static_cast<std::size_t>(key.place.layer)]},
                        {"purpose", key.place.purpose}}}});
  }
  return events.dump();
}

StepProfile::StepProfile(Communicator& world, const MachineRates& rates) : world_(world), rates_(rates) {
  world_.barrier();
  zero_ = Profile::Clock::now();
}

void StepProfile::end_step(double seconds) {
  ++steps_;
  if (steps_ > 1) {
    seconds_ += seconds;
  } else {
    profile_.clear();
  }
  const bool traced = steps_ <= traced_steps && world_.rank() < traced_ranks;
  profile_.keep_events(traced ? most_events : 0);
}

void StepProfile::tell(const std::function<void(const std::string&, const std::string&)>& keep) {
  if (steps_ < 2) return;
  Json events = Json::array();
  for (int rank = 0; rank < std::min(world_.size(), traced_ranks); ++rank) {
    const Json own = Json::parse(
        broadcast_text(world_, rank == world_.rank() ? trace_events(profile_, rank, zero_) : "", rank));
    events.insert(events.end(), own.begin(), own.end());
  }
  if (world_.rank() != 0) return;
  const double step_seconds = seconds_ / static_cast<double>(steps_ - 1);
  keep(profile_table(profile_, steps_ - 1, step_seconds, rates_), Json{{"traceEvents", events}}.dump());
}

}  // namespace conclave
