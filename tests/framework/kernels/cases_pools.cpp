// Sums of probabilities by document and logits masked outside of pools, against direct loops and a full sort.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "framework/kernels/token_masks.h"
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

/// Of id v the first set is expert v % experts, and the second has every expert whose number is like v's.
void add_token_mask(std::vector<OpCase>& cases, Size tokens, Size experts, Size vocabulary) {
  const Size words = static_cast<Size>(words_of_experts(length_of(experts)));
  Values ids(tokens), second(vocabulary), sets(vocabulary * 2 * words),
      logits = draw("logits", length_of(tokens * experts)), masked = logits;
  const auto is_open = [&](Size id, Size expert) {
    return second[id] > 0 ? (id + expert) % 3 == 0 : expert == id % experts;
  };
  for (Size id = 0; id < vocabulary; ++id) {
    second[id] = id % 2 == 1 ? 1 : 0;
    for (Size set = 0; set < 2; ++set)
      for (Size word = 0; word < words; ++word) {
        std::uint32_t bits = 0;
        for (Size bit = 0; bit < 32 && word * 32 + bit < experts; ++bit) {
          const Size expert = word * 32 + bit;
          if (set == 1 ? (id + expert) % 3 == 0 : expert == id % experts) bits |= 1u << bit;
        }
        sets[(id * 2 + set) * words + word] = static_cast<std::int32_t>(bits);
      }
  }
  for (Size t = 0; t < tokens; ++t) {
    ids[t] = t % 7 == 5 ? -1 : static_cast<double>(t * 5 % vocabulary);
    for (Size e = 0; ids[t] >= 0 && e < experts; ++e)
      if (!is_open(static_cast<Size>(ids[t]), e))
        masked[t * experts + e] = -std::numeric_limits<double>::infinity();
  }
  OpCase op{join_text("close_by_token_", tokens, "_of_", experts), 1,
            [](const Kernels& kernels, const Arguments& a) {
              kernels.family<TokenMaskKernels>().close_by_token(a["tokens"], a["sets"], a["second"],
                                                                a["logits"]);
            }};
  op.bfloat16_runs = OpCase::BFloat16Runs::nowhere;
  op.input("tokens", {length_of(tokens)}, ids, Type::int32);
  op.input("sets", {length_of(vocabulary), 2, length_of(words)}, sets, Type::int32);
  op.input("second", {length_of(vocabulary)}, second, Type::float64);
  cases.push_back(op.update("logits", {length_of(tokens), length_of(experts)}, logits, masked));
}

}  // namespace

std::vector<OpCase> pool_cases() {
  std::vector<OpCase> cases;
  for (const Size experts : {1, 7, 32, 33, 129}) add_token_mask(cases, 40, experts, 23);
  add_token_mask(cases, 0, 4, 3);
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
