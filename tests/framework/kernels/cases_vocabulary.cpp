// Embedding, and cross-entropy with and without the LM head, against log-softmax row by row.
#include <algorithm>
#include <cmath>

#include "framework/autograd/ops/vocabulary.h"
#include "tests/framework/kernels/op_table.h"

namespace conclave::test {
namespace {

void add_embedding(std::vector<OpCase>& cases, std::int64_t tokens, std::int64_t vocabulary,
                   std::int64_t hidden, Write write) {
  const Values weight = draw("weight", vocabulary * hidden), dy = draw("dy", tokens * hidden);
  Values ids, y(dy.size()), dweight(weight.size());
  for (std::int64_t t = 0; t < tokens; ++t) {
    const std::int64_t id = t % 5 == 3 ? -1 : (t * t + 3) % vocabulary;  // repeats, gaps and padding
    ids.push_back(static_cast<double>(id));
    for (std::int64_t i = 0; i < hidden && id >= 0; ++i) {
      const std::size_t to = static_cast<std::size_t>(t * hidden + i),
                        from = static_cast<std::size_t>(id * hidden + i);
      y[to] = weight[from];
      dweight[from] += dy[to];
    }
  }
  OpCase op{join_text("embedding_", tokens, "_of_", vocabulary, 'x', hidden,
                      write == Write::accumulate ? "_add" : ""),
            static_cast<double>(tokens), [=](const Kernels& kernels, const Arguments& a) {
              kernels.embedding(a["ids"], a["weight"], a["y"]);
              kernels.embedding_backward(a["ids"], a["dy"], a["dweight"], write);
              kernels.embedding_backward(a["ids"], a["dy"], a["dweight_sums"], write);
            }};
  op.input("weight", {vocabulary, hidden}, weight).input("dy", {tokens, hidden}, dy);
  op.input("ids", {tokens}, ids, Type::int32).output("y", {tokens, hidden}, y);
  op.written("dweight", {vocabulary, hidden}, write, dweight);
  cases.push_back(op.written("dweight_sums", {vocabulary, hidden}, write, dweight, Type::sums));
}

struct Losses {
  double loss = 0, z = 0;
  Values dlogits;
};

Losses naive_losses(const Values& logits, const Values& targets, std::int64_t vocabulary, double loss_scale,
                    double z_scale) {
  Losses result;
  result.dlogits.resize(logits.size());
  const std::size_t width = static_cast<std::size_t>(vocabulary);
  for (std::size_t row = 0; row < targets.size(); ++row) {
    if (targets[row] < 0) continue;
    const double* logit = logits.data() + row * width;
    const double largest = *std::max_element(logit, logit + width);
    double sum = 0;
    for (std::size_t j = 0; j < width; ++j) sum += std::exp(logit[j] - largest);
    const double lse = largest + std::log(sum);
    const std::size_t target = static_cast<std::size_t>(targets[row]);
    result.loss -= logit[target] - lse;
    result.z += lse * lse;
    for (std::size_t j = 0; j < width; ++j) {
      const double p = std::exp(logit[j] - lse);
      result.dlogits[row * width + j] = loss_scale * (p - (j == target ? 1.0 : 0.0)) + 2 * z_scale * lse * p;
    }
  }
  return result;
}

Values make_targets(std::int64_t rows, std::int64_t vocabulary) {
  Values targets;
  for (std::int64_t r = 0; r < rows; ++r)
    targets.push_back(static_cast<double>(r % 7 == 2 ? -1 : (r * 5) % vocabulary));
  return targets;
}

void add_cross_entropy(std::vector<OpCase>& cases, std::int64_t rows, std::int64_t vocabulary,
                       double loss_scale, double z_scale, double spread) {
  const Values logits = draw("logits", rows * vocabulary, spread), targets = make_targets(rows, vocabulary);
  const Losses want = naive_losses(logits, targets, vocabulary, loss_scale, z_scale);
  OpCase op{join_text("cross_entropy_", rows, 'x', vocabulary, z_scale > 0 ? "_z" : "", "_spread_", spread),
            static_cast<double>(vocabulary), [=](const Kernels& kernels, const Arguments& a) {
              kernels.cross_entropy_statistics(a["logits"], a["targets"], 0, a["statistics"]);
              kernels.cross_entropy_gradient(a["logits"], a["targets"], 0, a["log_sum_exp"], loss_scale,
                                             z_scale);
            }};
  Values log_sum_exp(static_cast<std::size_t>(rows)), statistics(static_cast<std::size_t>(3 * rows));
  for (std::int64_t r = 0; r < rows; ++r) {
    const auto row = logits.begin() + r * vocabulary;
    const auto at = static_cast<std::size_t>(r);
    const bool counted = targets[at] >= 0;
    const double largest = counted ? *std::max_element(row, row + vocabulary) : *row;
    double sum = 0;
    for (std::int64_t j = 0; j < vocabulary && counted; ++j) sum += std::exp(row[j] - largest);
    log_sum_exp[at] = counted ? largest + std::log(sum) : 0;
    statistics[3 * at] = largest;
    statistics[3 * at + 1] = sum;
    statistics[3 * at + 2] = counted ? row[static_cast<std::ptrdiff_t>(targets[at])] : 0;
  }
  op.bfloat16_runs = OpCase::BFloat16Runs::nowhere;
  op.update("logits", {rows, vocabulary}, logits, want.dlogits)
      .input("targets", {rows}, targets, Type::int32)
      .input("log_sum_exp", {rows}, log_sum_exp, Type::float64);
  cases.push_back(op.output("statistics", {rows, 3}, statistics, Type::float64));
}

/// Statistics of a vocabulary in parts, as ranks that share it hold them.
void add_cross_entropy_parts(std::vector<OpCase>& cases, std::int64_t parts, std::int64_t rows,
                             std::int64_t columns) {
  const std::int64_t vocabulary = parts * columns;
  const Values logits = draw("logits", rows * vocabulary, 5), targets = make_targets(rows, vocabulary);
  const Losses want = naive_losses(logits, targets, vocabulary, 1, 0);
  Values statistics(static_cast<std::size_t>(parts * rows * 3)), log_sum_exp(static_cast<std::size_t>(rows));
  for (std::int64_t r = 0; r < rows; ++r) {
    const auto row = logits.begin() + r * vocabulary;
    const auto target = static_cast<std::int64_t>(targets[static_cast<std::size_t>(r)]);
    double whole = 0;
    for (std::int64_t j = 0; j < vocabulary; ++j) whole += std::exp(row[j]);
    log_sum_exp[static_cast<std::size_t>(r)] = target >= 0 ? std::log(whole) : 0;
    for (std::int64_t part = 0; part < parts; ++part) {
      const auto begin = row + part * columns;
      double* own = statistics.data() + (part * rows + r) * 3;
      own[0] = *std::max_element(begin, begin + columns);
      for (std::int64_t j = 0; j < columns; ++j) own[1] += std::exp(begin[j] - own[0]);
      own[2] = target / columns == part && target >= 0 ? row[target] : 0;
    }
  }
  OpCase op{join_text("cross_entropy_losses_", rows, "_in_", parts, "_parts"), static_cast<double>(rows),
            [=](const Kernels& kernels, const Arguments& a) {
              kernels.cross_entropy_losses(a["statistics"], a["targets"], vocabulary, a["log_sum_exp"],
                                           a["sums"]);
            }};
  op.bfloat16_runs = OpCase::BFloat16Runs::nowhere;
  op.input("statistics", {parts, rows, 3}, statistics, Type::float64);
  op.input("targets", {rows}, targets, Type::int32);
  op.output("log_sum_exp", {rows}, log_sum_exp, Type::float64);
  cases.push_back(op.update("sums", {2}, {3, 4}, {3 + want.loss, 4 + want.z}, Type::float64));
}

/// The whole op, whose chunks hold 512 rows of logits.
void add_linear_cross_entropy(std::vector<OpCase>& cases, std::int64_t tokens, std::int64_t vocabulary,
                              std::int64_t hidden, double loss_scale, double z_scale) {
  const Values x = draw("x", tokens * hidden), weight = draw("weight", vocabulary * hidden);
  const Values targets = make_targets(tokens, vocabulary);
  Values logits(static_cast<std::size_t>(tokens * vocabulary)), dx(x.size()), dweight(weight.size());
  const auto each = [&](auto&& function) {
    for (std::int64_t t = 0; t < tokens; ++t)
      for (std::int64_t j = 0; j < vocabulary; ++j)
        for (std::int64_t i = 0; i < hidden; ++i)
          function(static_cast<std::size_t>(t * vocabulary + j), static_cast<std::size_t>(t * hidden + i),
                   static_cast<std::size_t>(j * hidden + i));
  };
  each([&](std::size_t logit, std::size_t at, std::size_t w) { logits[logit] += x[at] * weight[w]; });
  const Losses want = naive_losses(logits, targets, vocabulary, loss_scale, z_scale);
  each([&](std::size_t logit, std::size_t at, std::size_t w) {
    dx[at] += want.dlogits[logit] * weight[w];
    dweight[w] += want.dlogits[logit] * x[at];
  });
  OpCase op{
      join_text("linear_cross_entropy_", tokens, "_of_", vocabulary, 'x', hidden, z_scale > 0 ? "_z" : ""),
      static_cast<double>(std::max(tokens, vocabulary)),
      [=](const Kernels&, const Arguments& a) {
        Tape tape;
        const Variable rows{a["x"], Gradient::of(a["x"])};
        const Variable head{a["weight"], Gradient::stored_in(a["dweight"])};
        const CrossEntropy result = linear_cross_entropy(tape, rows, head, a["targets"],
                                                         {.loss_scale = loss_scale, .z_scale = z_scale});
        tape.backward(result.objective);
        head.gradient.finished();
        a["dx"].copy_from(rows.gradient.take());
        a["sums"].slice(0, 2).copy_from(result.sums);
        a["sums"].slice(2, 3).copy_from(result.objective.value);
      },
      false};
  op.input("x", {tokens, hidden}, x).input("weight", {vocabulary, hidden}, weight);
  op.input("targets", {tokens}, targets, Type::int32).output("dx", {tokens, hidden}, dx);
  op.slots.back().roundings = 1;  // of the gradient of the logits, before the products
  op.output("dweight", {vocabulary, hidden}, dweight, Type::sums).slots.back().roundings = 1;
  cases.push_back(
      op.output("sums", {3}, {want.loss, want.z, loss_scale * want.loss + z_scale * want.z}, Type::float64));
}

}  // namespace

std::vector<OpCase> vocabulary_cases() {
  std::vector<OpCase> cases;
  for (const Write write : {Write::overwrite, Write::accumulate}) {
    add_embedding(cases, 0, 3, 4, write);
    add_embedding(cases, 1, 1, 1, write);
    add_embedding(cases, 97, 13, 7, write);
    add_embedding(cases, 64, 501, 32, write);
  }
  add_cross_entropy(cases, 0, 5, 1, 0, 1);
  add_cross_entropy(cases, 1, 1, 1, 0.1, 1);
  add_cross_entropy(cases, 13, 257, 1.0 / 11, 0, 2);
  add_cross_entropy(cases, 29, 31, 0.25, 0.01, 2);
  add_cross_entropy(cases, 17, 101, 1, 1e-3, 40);
  add_cross_entropy_parts(cases, 1, 0, 5);
  add_cross_entropy_parts(cases, 1, 65, 7);
  add_cross_entropy_parts(cases, 3, 129, 11);
  add_linear_cross_entropy(cases, 0, 5, 3, 1, 0);
  add_linear_cross_entropy(cases, 1, 7, 3, 1, 0);
  add_linear_cross_entropy(cases, 23, 101, 16, 1.0 / 20, 1e-3);
  for (const std::int64_t tokens : {511, 512, 513, 1025})
    add_linear_cross_entropy(cases, tokens, 37, 5, 1.0 / 400, 1e-4);
  return cases;
}

}  // namespace conclave::test
