// The router of a token on one warp, formulas in kernels/cpu/routing.cpp. Expert e lies with lane e % 32;
// per_lane is how many a lane holds. Statistics are summed on the way: by warp, then over the warps of a
// block, which has a chunk of one sequence, then over the chunks, each in order.
#pragma once

#include <limits>

#include "framework/kernels/cuda/reduction.cuh"
#include "framework/kernels/cuda/storage.cuh"
#include "framework/kernels/scalar_math.h"

namespace conclave::DIALECT {

constexpr std::int64_t route_chunk = 64;  // tokens of one sequence that a block routes

struct RouteSizes {
  std::int64_t tokens, experts, top_k, length, first_token, chunks;  // chunks: per sequence
};
struct RouteChoice {
  bool sigmoid, renormalise, by_score;  // by_score: the choice needs scores, logits do not do
  float scale;
  std::int64_t groups, chosen_groups;
  const double* bias;  // [experts], or nullptr
  bool given;          // the output's experts are the choice
};
struct RouteOutput {
  std::int32_t* experts;
  float *weights, *probabilities, *log_sum_exp;
  std::int64_t* counts;
  double* of_chunk;  // [sequences, chunks, experts + 1]: sums of probabilities, and of log_sum_exp^2
};

template <class T>
DEVICE constexpr T lowest() {
  return -std::numeric_limits<T>::infinity();
}

/// log sigmoid(x), without overflow on either side.
DEVICE float log_sigmoid(float x) {
  return (x < 0 ? x : 0.0f) - std::log1p(std::exp(-std::abs(x)));
}

/// Softmax of the warp's values into p; values beyond the last are -infinity. Returns logsumexp.
template <int per_lane>
DEVICE float warp_softmax(const float (&values)[per_lane], float (&p)[per_lane]) {
  float largest = lowest<float>();
  UNROLL for (int j = 0; j < per_lane; ++j) largest = largest < values[j] ? values[j] : largest;
  largest = warp_reduce(largest, Maximum{});
  float sum = 0;
  UNROLL for (int j = 0; j < per_lane; ++j) {
    p[j] = values[j] == lowest<float>() ? 0 : exponential(values[j] - largest);
    sum += p[j];
  }
  sum = warp_reduce(sum, Sum{});
  UNROLL for (int j = 0; j < per_lane; ++j) p[j] /= sum;
  return largest + std::log(sum);
}

/// The index of the largest value, of equal ones the lowest, and takes it out of the running. Values that are
/// not numbers are never largest; where nothing else is left the answer is `otherwise`.
template <int per_lane>
DEVICE int take_best(double (&values)[per_lane], int otherwise) {
  double best = lowest<double>();
  int index = std::numeric_limits<int>::max();
  UNROLL for (int j = 0; j < per_lane; ++j) if (values[j] > best) {
    best = values[j];
    index = lane_index() + j * warp_size;
  }
  for (int mask = warp_size / 2; mask > 0; mask /= 2) {
    const double other = shuffle_xor(best, mask);
    const int other_index = shuffle_xor(index, mask);
    if (other > best || (other == best && other_index < index)) {
      best = other;
      index = other_index;
    }
  }
  UNROLL for (int j = 0; j < per_lane; ++j) if (lane_index() + j * warp_size == index) values[j] =
      lowest<double>();
  return index == std::numeric_limits<int>::max() ? otherwise : index;
}

/// The scores of experts outside the best groups become -infinity. scratch: the warp's own, [32 * per_lane].
template <int per_lane>
DEVICE void keep_best_groups(double (&scores)[per_lane], const RouteChoice& choice, std::int64_t experts,
                             double* scratch) {
  const std::int64_t size = experts / choice.groups;
  UNROLL for (int j = 0; j < per_lane; ++j) scratch[lane_index() + j * warp_size] = scores[j];
  sync_warp();
  double of_group[per_lane];
  UNROLL for (int j = 0; j < per_lane; ++j) {
    const std::int64_t group = lane_index() + j * warp_size;
    of_group[j] = lowest<double>();
    if (group >= choice.groups) continue;
    double best = lowest<double>(), second = best;
    for (std::int64_t i = group * size; i < (group + 1) * size; ++i) {
      const double score = scratch[i];
      if (score > best) {
        second = best;
        best = score;
      } else if (score > second) {
        second = score;
      }
    }
    of_group[j] = best + (choice.sigmoid && size > 1 ? second : 0);
  }
  sync_warp();
  UNROLL for (int j = 0; j < per_lane; ++j) scratch[lane_index() + j * warp_size] = 0;
  sync_warp();
  for (int n = 0; n < choice.chosen_groups; ++n) {
    const int group = take_best(of_group, n);
    if (lane_index() == 0) scratch[group] = 1;
  }
  sync_warp();
  UNROLL for (int j = 0; j < per_lane; ++j) {
    const std::int64_t expert = lane_index() + j * warp_size;
    if (expert < experts && scratch[expert / size] == 0) scores[j] = lowest<double>();
  }
  sync_warp();
}

template <int per_lane>
KERNEL route_kernel(RouteSizes z, RouteChoice choice, const float* logits, const std::int32_t* tokens,
                    RouteOutput out) {
  constexpr int room = warp_size * per_lane;
  SHARED(double, of_warps, warps_per_block* room);
  SHARED(double, z_of_warps, warps_per_block);
  double* own = of_warps + warp_index() * room;  // scratch memory first, this warp's sums at the end
  const std::int64_t sequence = block_index() / z.chunks;
  const std::int64_t begin = sequence * z.length - z.first_token + block_index() % z.chunks * route_chunk;
  const std::int64_t sequence_end = (sequence + 1) * z.length - z.first_token;
  std::int64_t end = begin + route_chunk < sequence_end ? begin + route_chunk : sequence_end;
  if (end > z.tokens) end = z.tokens;
  double sums[per_lane] = {}, z_sum = 0;
  for (std::int64_t t = (begin < 0 ? 0 : begin) + warp_index(); t < end; t += warps_per_block) {
    if (tokens[t] < 0) {
      for (std::int64_t e = lane_index(); e < z.experts; e += warp_size)
        out.probabilities[t * z.experts + e] = 0;
      if (lane_index() < z.top_k) {
        out.weights[t * z.top_k + lane_index()] = 0;
        out.experts[t * z.top_k + lane_index()] = -1;
      }
      if (lane_index() == 0) out.log_sum_exp[t] = 0;
      continue;
    }
    float values[per_lane], p[per_lane], score[per_lane];
    double selection[per_lane];
    UNROLL for (int j = 0; j < per_lane; ++j) {
      const std::int64_t expert = lane_index() + j * warp_size;
      values[j] = expert < z.experts ? logits[t * z.experts + expert] : lowest<float>();
      selection[j] = values[j];
    }
    const float log_sum_exp = warp_softmax(values, p);
    if (choice.sigmoid) {
      UNROLL for (int j = 0; j < per_lane; ++j) values[j] = log_sigmoid(values[j]);
      warp_softmax(values, p);
    }
    UNROLL for (int j = 0; j < per_lane; ++j) {
      const std::int64_t expert = lane_index() + j * warp_size;
      score[j] = choice.sigmoid ? std::exp(values[j]) : p[j];
      if (values[j] == lowest<float>()) continue;  // not in the running, or beyond the last
      if (choice.by_score) selection[j] = score[j];
      if (choice.bias != nullptr) selection[j] += choice.bias[expert];
      if (choice.renormalise) score[j] = p[j];  // from here what a choice is weighed by
    }
    if (!choice.given && choice.chosen_groups < choice.groups)
      keep_best_groups(selection, choice, z.experts, own);
    int chosen = -1;  // lane k holds the k-th choice
    float weight = 0;
    for (int k = 0; k < z.top_k; ++k) {
      // A barred expert is never taken, and where no other is left the slot stays unused.
      const int expert = choice.given ? out.experts[t * z.top_k + k] : take_best(selection, k == 0 ? 0 : -1);
      float offer = 0;
      UNROLL for (int j = 0; j < per_lane; ++j) if (expert >= 0 && j == expert / warp_size) offer =
          choice.renormalise ? p[j] : score[j];
      offer = shuffle(offer, expert < 0 ? 0 : expert % warp_size);
      if (expert < 0) offer = 0;
      if (lane_index() == k) {
        chosen = expert;
        weight = offer;
      }
    }
    const float total = warp_reduce(weight, Sum{});
    if (lane_index() < z.top_k) {
      out.weights[t * z.top_k + lane_index()] = weight * (choice.scale / (choice.renormalise ? total : 1.0f));
      out.experts[t * z.top_k + lane_index()] = chosen;
      if (chosen >= 0) atomic_add(out.counts + sequence * z.experts + chosen, std::int64_t{1});
    }
    UNROLL for (int j = 0; j < per_lane; ++j) {
      const std::int64_t expert = lane_index() + j * warp_size;
      if (expert < z.experts) out.probabilities[t * z.experts + expert] = p[j];
      sums[j] += p[j];
    }
    if (lane_index() == 0) out.log_sum_exp[t] = log_sum_exp;
    z_sum += static_cast<double>(log_sum_exp) * log_sum_exp;
  }
  UNROLL for (int j = 0; j < per_lane; ++j) own[lane_index() + j * warp_size] = sums[j];
  if (lane_index() == 0) z_of_warps[warp_index()] = z_sum;
  sync_block();
  double* of_chunk = out.of_chunk + block_index() * (z.experts + 1);
  for (std::int64_t e = thread_index(); e <= z.experts; e += block_size()) {
    double sum = 0;
    for (int warp = 0; warp < warps_per_block; ++warp)
      sum += e < z.experts ? of_warps[warp * room + e] : z_of_warps[warp];
    of_chunk[e] = sum;
  }
}

/// probability_sums [sequences, experts] from of_chunk.
KERNEL route_sums_kernel(const double* of_chunk, std::int64_t sequences, std::int64_t chunks,
                         std::int64_t experts, double* probability_sums) {
  const std::int64_t item = first_item(), sequence = item / experts, expert = item % experts;
  if (sequence >= sequences) return;
  double sum = 0;
  for (std::int64_t chunk = 0; chunk < chunks; ++chunk)
    sum += of_chunk[(sequence * chunks + chunk) * (experts + 1) + expert];
  probability_sums[item] = sum;
}

struct RouteGradients {
  const std::int32_t* experts;
  const float *weights, *probabilities, *log_sum_exp, *logits, *dweights;  // logits: of a sigmoid alone
  const double *dprobability_sums, *dz_sum;
  float* dlogits;
};

template <int per_lane>
KERNEL route_backward_kernel(RouteSizes z, RouteChoice choice, RouteGradients g) {
  const std::int64_t t = item_of_warp();
  if (t >= z.tokens) return;
  const std::int32_t* chosen = g.experts + t * z.top_k;
  const float *w = g.weights + t * z.top_k, *dw = g.dweights + t * z.top_k,
              *p = g.probabilities + t * z.experts;
  float* ds = g.dlogits + t * z.experts;
  if (chosen[0] < 0) {
    for (std::int64_t e = lane_index(); e < z.experts; e += warp_size) ds[e] = 0;
    return;
  }
  float total = 0, pull = 0;
  for (std::int64_t k = 0; k < z.top_k; ++k) {
    if (chosen[k] < 0) continue;
    total += p[chosen[k]];
    pull += dw[k] * w[k];
  }
  const double* dsum = g.dprobability_sums + (z.first_token + t) / z.length * z.experts;
  float dp[per_lane], direct[per_lane], dot = 0;  // direct: what reaches the score itself, past the softmax
  UNROLL for (int j = 0; j < per_lane; ++j) {
    const std::int64_t expert = lane_index() + j * warp_size;
    dp[j] = direct[j] = 0;
    if (expert >= z.experts) continue;
    dp[j] = static_cast<float>(dsum[expert]);
    for (std::int64_t k = 0; k < z.top_k; ++k) {
      if (chosen[k] != expert) continue;
      const float gradient = choice.scale * dw[k];
      if (choice.renormalise)
        dp[j] += (gradient - pull) / total;
      else if (choice.sigmoid)
        direct[j] += gradient;
      else
        dp[j] += gradient;
    }
    dot += dp[j] * p[expert];
  }
  dot = warp_reduce(dot, Sum{});
  const float log_sum_exp = g.log_sum_exp[t], by_z = 2 * static_cast<float>(*g.dz_sum) * log_sum_exp;
  UNROLL for (int j = 0; j < per_lane; ++j) {
    const std::int64_t expert = lane_index() + j * warp_size;
    if (expert >= z.experts) continue;
    float gradient = p[expert] * (dp[j] - dot);
    if (choice.sigmoid) {
      const float s = g.logits[t * z.experts + expert], complement = std::exp(log_sigmoid(-s));
      gradient =
          (gradient + direct[j] * std::exp(log_sigmoid(s))) * complement + by_z * std::exp(s - log_sum_exp);
    } else {
      gradient += by_z * p[expert];
    }
    ds[expert] = gradient;
  }
}

}  // namespace conclave::DIALECT
