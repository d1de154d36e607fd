// Sums of probabilities by document and logits masked outside of pools, against direct loops and a full sort.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "tests/framework/kernels/op_table.h"

namespace conclave::test {
namespace {

struct Document {
  Size begin, end, pool;
};

Values rows_of(const std::vector<Document>& documents) {
  Values rows;
  for (const Document& document : documents)
    for (const Size number : {document.begin, document.end, document.pool})
      rows.push_back(static_cast<double>(number));
  return rows;
}

void add_sums(std::vector<OpCase>& cases, const std::string& name, Size tokens, Size experts,
              const std::vector<Document>& documents) {
  const Values logits = draw("logits", length_of(tokens * experts), 3);
  Values sums;
  for (const Document& document : documents) {
    Values sum(experts);
    for (Size t = document.begin; t < document.end; ++t) {
      double total = 0;
      for (Size i = 0; i < experts; ++i) total += std::exp(logits[t * experts + i]);
      for (Size i = 0; i < experts; ++i) sum[i] += std::exp(logits[t * experts + i]) / total;
    }
    sums.insert(sums.end(), sum.begin(), sum.end());
  }
  OpCase op{join_text("sum_over_documents_", name, "_of_", experts), static_cast<double>(tokens + experts),
            [](const Kernels& kernels, const Arguments& a) {
              kernels.sum_over_documents(a["logits"], a["documents"], a["sums"]);
            }};
  op.bfloat16_runs = OpCase::BFloat16Runs::nowhere;
  op.input("logits", {length_of(tokens), length_of(experts)}, logits);
  op.input("documents", {length_of(documents.size()), 3}, rows_of(documents), Type::int32);
  cases.push_back(op.output("sums", {length_of(documents.size()), length_of(experts)}, sums, Type::float64));
}

/// Sums are whole numbers in a mixed order. `ties`: pairs are equal but for digits beyond those that count.
void add_mask(std::vector<OpCase>& cases, const std::string& name, Size tokens, Size experts,
              const std::vector<Document>& documents, bool ties) {
  Values sums, given, logits = draw("logits", length_of(tokens * experts));
  Values masked = logits;
  for (Size d = 0; d < documents.size(); ++d) {
    Values sum(experts);
    for (Size i = 0; i < experts; ++i) {
      const Size mixed = (i * 7919 + d * 31) % 4093;
      sum[i] = 1 + static_cast<double>(ties ? mixed / 2 % 3 : mixed % 2039);
    }
    std::vector<Size> order(experts);
    std::iota(order.begin(), order.end(), Size{0});
    std::stable_sort(order.begin(), order.end(), [&](Size a, Size b) { return sum[a] > sum[b]; });
    for (Size t = documents[d].begin; t < documents[d].end; ++t)
      for (Size place = documents[d].pool; place < experts; ++place)
        masked[t * experts + order[place]] = -std::numeric_limits<double>::infinity();
    // The higher index gets the larger digits, which must not count.
    for (Size i = 0; i < experts; ++i)
      given.push_back(sum[i] * (ties ? 1 + 1e-13 * static_cast<double>(i) : 1));
  }
  OpCase op{join_text("mask_outside_pools_", name, "_of_", experts, ties ? "_ties" : ""), 1,
            [](const Kernels& kernels, const Arguments& a) {
              kernels.mask_outside_pools(a["documents"], a["sums"], a["logits"]);
            }};
  op.bfloat16_runs = OpCase::BFloat16Runs::nowhere;
  op.input("documents", {length_of(documents.size()), 3}, rows_of(documents), Type::int32);
  op.input("sums", {length_of(documents.size()), length_of(experts)}, given, Type::float64);
  cases.push_back(op.update("logits", {length_of(tokens), length_of(experts)}, logits, masked));
}

}  // namespace

std::vector<OpCase> pool_cases() {
  std::vector<OpCase> cases;
  for (const Size experts : {1, 2, 7, 31, 33, 128, 512}) {
    const Size half = (experts + 1) / 2;
    const std::vector<Document> packed{
        {0, 5, 1}, {5, 6, half}, {6, 10, experts}, {10, 11, experts + 1}, {13, 20, half}};
    add_sums(cases, "packed", 21, experts, packed);
    for (const bool ties : {false, true}) add_mask(cases, "packed", 21, experts, packed, ties);
  }
  add_sums(cases, "long", 301, 7, {{0, 301, 3}});
  add_mask(cases, "long", 301, 7, {{0, 301, 3}}, false);
  add_sums(cases, "none", 3, 4, {});
  add_mask(cases, "none", 3, 4, {}, false);
  add_sums(cases, "no_tokens", 0, 4, {});
  return cases;
}

}  // namespace conclave::test
