// Routing, sorting by expert, gathering and combining against direct formulas; the top-k choice against a
// full sort.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "tests/framework/kernels/op_table.h"

namespace conclave::test {
namespace {

struct Route {
  Size sequences, length, experts, top_k;
  bool renormalise, padding, ties;
  double spread = 1;
  bool sigmoid = false;
  double scale = 1;
  Size groups = 1, chosen_groups = 1;
  bool biased = false;
  bool masked = false;  // of each token about half of the experts are out of the running
};

/// The experts in the order in which the rule prefers them, written as a sort of everything.
std::vector<Size> preference(const Route& z, const Values& scores, const Values& bias) {
  const Size size = z.experts / z.groups;
  const auto selection = [&](Size i) { return scores[i] + (z.biased ? bias[i] : 0); };
  Values of_group(z.groups);
  std::vector<Size> groups(z.groups), order(z.experts);
  for (Size g = 0; g < z.groups; ++g) {
    Values members;
    for (Size i = g * size; i < (g + 1) * size; ++i) members.push_back(selection(i));
    std::sort(members.rbegin(), members.rend());
    of_group[g] = members[0] + (z.sigmoid && size > 1 ? members[1] : 0);
  }
  std::iota(groups.begin(), groups.end(), Size{0});
  std::stable_sort(groups.begin(), groups.end(), [&](Size a, Size b) { return of_group[a] > of_group[b]; });
  const auto out = [&](Size i) {
    return std::find(groups.begin(), groups.begin() + length_of(z.chosen_groups), i / size) ==
           groups.begin() + length_of(z.chosen_groups);
  };
  std::iota(order.begin(), order.end(), Size{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](Size a, Size b) { return out(a) != out(b) ? out(b) : selection(a) > selection(b); });
  return order;
}

void add_route(std::vector<OpCase>& cases, const Route& z) {
  const Size count = z.sequences * z.length, n = z.experts;
  Values logits = draw("logits", length_of(count * n), z.spread), tokens(count);
  if (z.ties)
    for (double& logit : logits) logit = std::round(logit);
  for (Size i = 0; z.masked && i < logits.size(); ++i)
    if ((i / n + i % n) % 2 == 1) logits[i] = -std::numeric_limits<double>::infinity();
  for (Size t = 0; t < count; ++t) tokens[t] = z.padding && t % 5 >= 3 ? -1 : 17;
  const Values dweights = draw("dweights", length_of(count * z.top_k)),
               dsums = draw("dsums", length_of(z.sequences * n)), bias = draw("bias", length_of(n), 0.3);
  const double dz = 0.03;
  Values chosen(count * z.top_k, -1), weights(chosen.size()), p(logits.size()), lse(count),
      dlogits(logits.size());
  Values counts(z.sequences * n), sums(z.sequences * n);
  double z_sum = 0;
  for (Size t = 0; t < count; ++t) {
    if (tokens[t] < 0) continue;
    const Size s = t / z.length;
    double total = 0, kept = 0;
    const double largest =
        *std::max_element(logits.begin() + length_of(t * n), logits.begin() + length_of(t * n + n));
    for (Size i = 0; i < n; ++i) total += std::exp(logits[t * n + i] - largest);
    lse[t] = largest + std::log(total);
    z_sum += lse[t] * lse[t];
    Values softmax(n), q(n);
    double all_scores = 0;
    for (Size i = 0; i < n; ++i) {
      softmax[i] = std::exp(logits[t * n + i] - lse[t]);
      all_scores += q[i] = z.sigmoid ? 1 / (1 + std::exp(-logits[t * n + i])) : softmax[i];
    }
    for (Size i = 0; i < n; ++i) sums[s * n + i] += p[t * n + i] = z.sigmoid ? q[i] / all_scores : softmax[i];
    const bool by_logit = !z.biased && !(z.sigmoid && z.groups > 1);
    Values preferred(logits.begin() + length_of(t * n), logits.begin() + length_of(t * n + n));
    for (Size i = 0; !by_logit && i < n; ++i)
      if (std::isfinite(preferred[i])) preferred[i] = q[i];
    const std::vector<Size> order = preference(z, preferred, bias);
    Size used = 0;  // a barred expert takes no slot
    while (used < z.top_k && std::isfinite(logits[t * n + order[used]])) ++used;
    for (Size k = 0; k < used; ++k) kept += q[order[k]];
    Values dp(dsums.begin() + length_of(s * n), dsums.begin() + length_of(s * n + n));
    for (Size k = 0; k < used; ++k) {
      chosen[t * z.top_k + k] = static_cast<double>(order[k]);
      weights[t * z.top_k + k] = z.scale * q[order[k]] / (z.renormalise ? kept : 1);
      counts[s * n + order[k]] += 1;
    }
    Values dq(n);
    for (Size k = 0; k < used; ++k)  // dw_k / dq_m = ([m = k] scale - w_k) / kept over the chosen m
      for (Size m = 0; m < used; ++m) {
        const double own = m == k ? z.scale : 0, w = weights[t * z.top_k + k];
        dq[order[m]] += dweights[t * z.top_k + k] * (z.renormalise ? (own - w) / kept : own);
      }
    for (Size j = 0; j < n; ++j) {
      // p = q / sum(q) for both scores; dq_i / ds_j of a softmax, or of a sigmoid.
      for (Size i = 0; i < n; ++i) {
        const double own = i == j ? 1.0 : 0.0, by_p = dp[i] * p[t * n + i] * (own - p[t * n + j]);
        dlogits[t * n + j] += z.sigmoid ? by_p * (1 - q[j]) + dq[i] * own * q[i] * (1 - q[i])
                                        : by_p + dq[i] * q[i] * (own - q[j]);
      }
      dlogits[t * n + j] += dz * 2 * lse[t] * softmax[j];
    }
  }
  const Shape by_expert{length_of(count), length_of(n)}, by_slot{length_of(count), length_of(z.top_k)};
  const Shape statistics{length_of(z.sequences), length_of(n)};
  OpCase op{
      join_text("route_", z.sequences, 'x', z.length, "_top_", z.top_k, "_of_", n,
                z.renormalise ? "_renormalised" : "", z.padding ? "_padding" : "", z.ties ? "_ties" : "",
                z.sigmoid ? "_sigmoid" : "", z.biased ? "_biased" : "", z.masked ? "_masked" : "",
                z.groups > 1 ? join_text("_", z.chosen_groups, "_of_", z.groups, "_groups") : "", "_scale_",
                10 * z.scale, "_tenths_spread_", z.spread),
      static_cast<double>(n), [=](const Kernels& kernels, const Arguments& a) {
        const RouteResult result{
            a["experts"],       a["weights"],          a["probabilities"], a["log_sum_exp"],
            a["counts"],        a["probability_sums"], a["z_sum"],         0,
            length_of(z.length)};
        const RouteRule rule{.score = z.sigmoid ? RouteRule::Score::sigmoid : RouteRule::Score::softmax,
                             .renormalise = z.renormalise,
                             .scale = z.scale,
                             .groups = length_of(z.groups),
                             .chosen_groups = length_of(z.chosen_groups),
                             .selection_bias = z.biased ? a["bias"] : Tensor()};
        kernels.route(a["logits"], a["tokens"], rule, result);
        kernels.route_backward(result, rule, z.sigmoid ? a["logits"] : Tensor(), a["dweights"], a["dsums"],
                               a["dz"], a["dlogits"]);
      }};
  op.bfloat16_runs = OpCase::BFloat16Runs::nowhere;
  op.input("logits", by_expert, logits).input("tokens", {length_of(count)}, tokens, Type::int32);
  if (z.biased) op.input("bias", {length_of(n)}, bias, Type::float64);
  op.input("dweights", by_slot, dweights).input("dsums", statistics, dsums, Type::float64);
  op.input("dz", {1}, {dz}, Type::float64);
  op.output("experts", by_slot, chosen, Type::int32).output("weights", by_slot, weights);
  op.output("probabilities", by_expert, p).output("log_sum_exp", {length_of(count)}, lse);
  op.output("counts", statistics, counts, Type::int64)
      .output("probability_sums", statistics, sums, Type::float64);
  cases.push_back(op.output("z_sum", {1}, {z_sum}, Type::float64).output("dlogits", by_expert, dlogits));
}

/// Assignments for tokens * top_k slots; `hole`: every so manieth slot goes nowhere.
void add_permutation(std::vector<OpCase>& cases, const std::string& name, Size tokens, Size top_k,
                     Size experts, Size hidden, Size hole, bool all_on_one) {
  Values chosen(tokens * top_k), row_of_slot(tokens * top_k, -1), offsets{0}, token_of_row, slot_of_row;
  for (Size slot = 0; slot < chosen.size(); ++slot) {
    chosen[slot] = all_on_one ? static_cast<double>(experts - 1)
                              : static_cast<double>((slot * slot + slot / 3) % experts);
    if (hole > 0 && slot % hole == hole / 2) chosen[slot] = -1;
  }
  for (Size e = 0; e < experts; ++e) {
    for (Size slot = 0; slot < chosen.size(); ++slot) {
      if (chosen[slot] != static_cast<double>(e)) continue;
      row_of_slot[slot] = static_cast<double>(token_of_row.size());
      token_of_row.push_back(static_cast<double>(slot / top_k));
      slot_of_row.push_back(static_cast<double>(slot));
    }
    offsets.push_back(static_cast<double>(token_of_row.size()));
  }
  const Size rows = token_of_row.size();
  const Values x = draw("x", length_of(tokens * hidden)), drows = draw("drows", length_of(rows * hidden));
  const Values values = draw("values", length_of(rows * hidden)),
               weights = draw("weights", length_of(tokens * top_k));
  const Values dy = draw("dy", length_of(tokens * hidden));
  Values gathered(drows.size()), dx(x.size()), y(x.size()), dvalues(values.size()), dweights(weights.size());
  for (Size r = 0; r < rows; ++r)
    for (Size i = 0; i < hidden; ++i) {
      const Size slot = static_cast<Size>(slot_of_row[r]), from = slot / top_k * hidden + i,
                 to = r * hidden + i;
      gathered[to] = x[from];
      dx[from] += drows[to];
      y[from] += weights[slot] * values[to];
      dvalues[to] = weights[slot] * dy[from];
      dweights[slot] += values[to] * dy[from];
    }
  const Shape by_slot{length_of(tokens), length_of(top_k)}, by_token{length_of(tokens), length_of(hidden)};
  const Shape by_row{length_of(rows), length_of(hidden)}, row_list{length_of(rows)};
  const Shape offset_list{length_of(experts + 1)};
  const auto order_of = [](const Arguments& a) {
    return RowOrder{a["offsets"], a["row_of_slot"], a["token_of_row"], a["slot_of_row"]};
  };
  OpCase sort{"sort_by_expert_" + name, 1, [=](const Kernels& kernels, const Arguments& a) {
                const RowOrder order = kernels.sort_by_expert(a["chosen"], length_of(experts));
                a["offsets"].copy_from(order.offsets);
                a["on_host"].copy_from(Tensor::from(order.offsets.on_host(), offset_list));
                a["row_of_slot"].copy_from(order.row_of_slot);
                a["token_of_row"].copy_from(order.token_of_row);
                a["slot_of_row"].copy_from(order.slot_of_row);
              }};
  sort.input("chosen", by_slot, chosen, Type::int32).output("offsets", offset_list, offsets, Type::int64);
  sort.output("on_host", offset_list, offsets, Type::int64);
  sort.output("row_of_slot", by_slot, row_of_slot, Type::int32)
      .output("token_of_row", row_list, token_of_row, Type::int32);
  cases.push_back(sort.output("slot_of_row", row_list, slot_of_row, Type::int32));

  OpCase rows_op{"gather_and_combine_" + name, static_cast<double>(hidden),
                 [=](const Kernels& kernels, const Arguments& a) {
                   const RowOrder order = order_of(a);
                   kernels.permute_rows(a["x"], order, a["gathered"]);
                   kernels.permute_rows_backward(a["drows"], order, a["dx"]);
                   kernels.combine_rows(a["values"], a["weights"], order, a["y"]);
                   kernels.combine_rows_backward(a["values"], a["weights"], order, a["dy"], a["dvalues"],
                                                 a["dweights"]);
                 }};
  rows_op.input("offsets", offset_list, offsets, Type::int64)
      .input("row_of_slot", by_slot, row_of_slot, Type::int32);
  rows_op.input("token_of_row", row_list, token_of_row, Type::int32)
      .input("slot_of_row", row_list, slot_of_row, Type::int32);
  rows_op.input("x", by_token, x).input("drows", by_row, drows).input("values", by_row, values);
  rows_op.input("weights", by_slot, weights, Type::sums)
      .input("dy", by_token, dy)
      .output("gathered", by_row, gathered);
  rows_op.output("dx", by_token, dx).output("y", by_token, y).output("dvalues", by_row, dvalues);
  cases.push_back(rows_op.output("dweights", by_slot, dweights, Type::sums));
}

}  // namespace

std::vector<OpCase> routing_cases() {
  std::vector<OpCase> cases;
  for (const bool renormalise : {false, true}) {
    for (const Size top_k : {1, 2, 7}) {
      add_route(cases, {1, 13, 7, top_k, renormalise, false, false});
      add_route(cases, {3, 10, 7, top_k, renormalise, true, false});
      add_route(cases, {2, 11, 7, top_k, renormalise, true, true});
    }
    add_route(cases, {1, 1, 1, 1, renormalise, false, false});
    add_route(cases, {1, 0, 4, 2, renormalise, false, false});
    add_route(cases, {2, 9, 31, 8, renormalise, false, false, 30});
    add_route(cases, {5, 33, 64, 6, renormalise, true, false});
    for (const bool sigmoid : {false, true})
      for (const bool biased : {false, true}) {
        add_route(cases, {2, 9, 7, 3, renormalise, true, false, 1, sigmoid, 1.5, 1, 1, biased});
        add_route(cases, {2, 9, 12, 3, renormalise, true, false, 1, sigmoid, 2.5, 4, 2, biased});
        add_route(cases, {1, 5, 6, 2, renormalise, false, false, 1, sigmoid, 1, 6, 3, biased});
        add_route(cases, {2, 9, 31, 8, renormalise, false, false, 20, sigmoid, 1, 1, 1, biased});
      }
  }
  for (const bool renormalise : {false, true})
    for (const bool sigmoid : {false, true})
      for (const bool biased : {false, true}) {
        add_route(cases, {2, 9, 7, 3, renormalise, true, false, 1, sigmoid, 1.5, 1, 1, biased, true});
        add_route(cases, {2, 9, 7, 6, renormalise, true, false, 1, sigmoid, 1.5, 1, 1, biased, true});
        add_route(cases, {1, 70, 129, 8, renormalise, false, false, 2, sigmoid, 1, 1, 1, biased, true});
      }
  // As large as routers are; on a GPU 32, 128 and 512 experts are the limits of kernels, 64 tokens a block's
  // share.
  for (const Size experts : {32, 33, 128, 129}) add_route(cases, {1, 3, experts, 4, true, false, false});
  add_route(cases, {2, 65, 512, 16, true, true, false, 1, true, 2.5, 8, 4, true});
  add_route(cases, {1, 130, 130, 8, true, true, false});
  add_route(cases, {1, 3, 512, 16, false, false, false, 1, true, 1, 512, 100, true});
  add_permutation(cases, "plain", 23, 2, 5, 7, 0, false);
  add_permutation(cases, "holes", 31, 3, 8, 16, 4, false);
  add_permutation(cases, "one_expert_takes_all", 17, 1, 4, 5, 0, true);
  add_permutation(cases, "many_experts", 3, 2, 67, 1, 0, false);
  add_permutation(cases, "several_chunks", 200, 3, 300, 3, 7, false);
  add_permutation(cases, "no_tokens", 0, 2, 3, 4, 0, false);
  add_permutation(cases, "nothing_routed", 5, 2, 3, 4, 1, false);
  return cases;
}

}  // namespace conclave::test
