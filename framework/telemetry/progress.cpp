#include "framework/telemetry/progress.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "framework/base/text.h"

namespace conclave {
namespace {

template <class... Values>
std::string format(const char* pattern, Values... values) {
  char text[96];
  std::snprintf(text, sizeof text, pattern, values...);
  return text;
}

std::string rate_text(double per_second) {
  if (per_second >= 1e6) return format("%.2f M", per_second / 1e6);
  return per_second >= 1e4 ? format("%.1f k", per_second / 1e3) : format("%.0f", per_second);
}

}  // namespace

std::string duration_text(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0 || seconds > 3.0e9) return "?";
  const auto whole = static_cast<long long>(std::llround(seconds));
  const long long hours = whole / 3600, minutes = whole / 60 % 60;
  if (hours >= 24) return format("%lld d %lld h", hours / 24, hours % 24);
  return hours > 0 ? format("%lld:%02lld:%02lld", hours, minutes, whole % 60)
                   : format("%lld:%02lld", minutes, whole % 60);
}

std::string progress_text(const ProgressState& state, std::int64_t steps, double seconds_left) {
  const std::string total = std::to_string(steps);
  const std::string done = std::to_string(state.step);
  std::string text =
      "step " + std::string(total.size() - std::min(total.size(), done.size()), ' ') + done + "/" + total;
  // A loss that is not a number is the one thing never to leave out.
  text += "  loss " + fixed(state.loss, 4);
  if (std::isfinite(state.tokens_per_second)) text += "  " + rate_text(state.tokens_per_second) + " tokens/s";
  if (std::isfinite(state.matrix_rate_fraction))
    text += format("  %.0f%% of matrix rate", 100 * state.matrix_rate_fraction);
  if (std::isfinite(state.load_imbalance)) text += format("  imbalance %.2f", state.load_imbalance);
  if (state.step < steps && std::isfinite(seconds_left)) text += "  " + duration_text(seconds_left) + " left";
  return text;
}

std::string bar_text(std::int64_t done, std::int64_t steps, std::size_t text_columns, std::size_t columns) {
  constexpr std::size_t frame = 3, least = 8, most = 24;  // "[", "]" and a space
  if (columns < text_columns + frame + least + 1) return "";
  const std::size_t width = std::min(most, columns - text_columns - frame - 1);
  const double part =
      std::clamp(static_cast<double>(done) / static_cast<double>(std::max<std::int64_t>(1, steps)), 0.0, 1.0);
  const auto full = static_cast<std::size_t>(part * static_cast<double>(width));
  const std::string bar = std::string(full, '=') + (full < width ? ">" : "");
  return "[" + bar + std::string(width - bar.size(), ' ') + "] ";
}

void Progress::update(const ProgressState& state) {
  if (logger_.rank() != 0) return;
  if (std::isfinite(state.step_seconds))
    smooth_step_seconds_ =
        smooth_step_seconds_ > 0 ? 0.9 * smooth_step_seconds_ + 0.1 * state.step_seconds : state.step_seconds;
  const double unknown = std::numeric_limits<double>::quiet_NaN();
  const double left =
      smooth_step_seconds_ > 0 ? smooth_step_seconds_ * static_cast<double>(steps_ - state.step) : unknown;
  const std::string text = progress_text(state, steps_, left);

  const double now = logger_.elapsed_seconds();
  const bool last = state.step >= steps_;
  const bool redraw =
      last || last_rewrite_ < 0 || now - last_rewrite_ >= 0.1;  // eyes need no more than ten a second
  if (logger_.rewrites() && redraw) {
    // As much room as the line may ever need, so that the bar does not come and go with the numbers.
    const std::size_t widest = 92 + 2 * std::to_string(steps_).size();
    std::string line = bar_text(state.step, steps_, widest, logger_.columns()) + text;
    if (text.size() >= logger_.columns()) {  // the time left is at its end and worth more than the rate
      ProgressState narrow = state;
      narrow.matrix_rate_fraction = unknown;
      line = progress_text(narrow, steps_, left);
    }
    logger_.rewrite_line(line);
    last_rewrite_ = now;
    if (last) logger_.finish_line();
  }
  const std::int64_t stride = std::max<std::int64_t>(1, steps_ / 50);
  const bool plain =
      last || last_plain_step_ < 0 || state.step - last_plain_step_ >= stride || now - last_plain_ >= 10;
  if (!plain) return;
  last_plain_step_ = state.step;
  last_plain_ = now;
  if (logger_.rewrites())
    logger_.write_to_file(text);
  else
    logger_.info(text);
}

}  // namespace conclave
