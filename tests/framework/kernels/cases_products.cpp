// Matrix products against the triple loop.
#include <algorithm>

#include "tests/framework/kernels/op_table.h"

namespace conclave::test {
namespace {

std::size_t at(std::int64_t row, std::int64_t column, std::int64_t width) {
  return static_cast<std::size_t>(row * width + column);
}

void add_gemm(std::vector<OpCase>& cases, std::int64_t m, std::int64_t n, std::int64_t k, Transpose ta,
              Transpose tb, Write write) {
  const bool a_turned = ta == Transpose::yes, b_turned = tb == Transpose::yes;
  const Values a = draw("a", m * k), b = draw("b", k * n);
  Values c(static_cast<std::size_t>(m * n));
  for (std::int64_t i = 0; i < m; ++i)
    for (std::int64_t j = 0; j < n; ++j)
      for (std::int64_t p = 0; p < k; ++p)
        c[at(i, j, n)] += a[a_turned ? at(p, i, m) : at(i, p, k)] * b[b_turned ? at(j, p, k) : at(p, j, n)];
  OpCase op{join_text("gemm_", a_turned ? 't' : 'n', b_turned ? 't' : 'n',
                      write == Write::accumulate ? "_add_" : "_", m, 'x', n, 'x', k),
            static_cast<double>(k),
            [=](const Kernels& kernels, const Arguments& x) {
              kernels.gemm(x["a"], ta, x["b"], tb, x["c"], write);
              kernels.gemm(x["a"], ta, x["b"], tb, x["c_sums"], write);
            },
            false};
  op.input("a", a_turned ? Shape{k, m} : Shape{m, k}, a).input("b", b_turned ? Shape{n, k} : Shape{k, n}, b);
  cases.push_back(op.written("c", {m, n}, write, c).written("c_sums", {m, n}, write, c, Type::sums));
}

void add_grouped(std::vector<OpCase>& cases, const std::string& name,
                 const std::vector<std::int64_t>& rows_of_expert, std::int64_t out, std::int64_t in,
                 Write write) {
  const std::int64_t experts = static_cast<std::int64_t>(rows_of_expert.size());
  Values offsets{0};
  std::vector<std::int64_t> expert_of_row;
  for (std::int64_t e = 0; e < experts; ++e) {
    expert_of_row.insert(expert_of_row.end(),
                         static_cast<std::size_t>(rows_of_expert[static_cast<std::size_t>(e)]), e);
    offsets.push_back(static_cast<double>(expert_of_row.size()));
  }
  const std::int64_t rows = static_cast<std::int64_t>(expert_of_row.size());
  const Values x = draw("x", rows * in), dy = draw("dy", rows * out),
               weight = draw("weight", experts * out * in);
  Values y(dy.size()), dx(x.size()), dweight(weight.size());
  for (std::int64_t r = 0; r < rows; ++r)
    for (std::int64_t o = 0; o < out; ++o)
      for (std::int64_t i = 0; i < in; ++i) {
        const std::size_t w = at(expert_of_row[static_cast<std::size_t>(r)] * out + o, i, in);
        y[at(r, o, out)] += weight[w] * x[at(r, i, in)];
        dx[at(r, i, in)] += weight[w] * dy[at(r, o, out)];
        dweight[w] += dy[at(r, o, out)] * x[at(r, i, in)];
      }
  OpCase op{"grouped_linear_" + name + (write == Write::accumulate ? "_add" : ""),
            static_cast<double>(std::max({rows, in, out})), [=](const Kernels& kernels, const Arguments& a) {
              kernels.grouped_linear(a["x"], a["weight"], a["offsets"], a["y"]);
              kernels.grouped_linear_dx(a["dy"], a["weight"], a["offsets"], a["dx"], write);
              kernels.grouped_linear_dweight(a["dy"], a["x"], a["offsets"], a["dweight"], write);
              kernels.grouped_linear_dweight(a["dy"], a["x"], a["offsets"], a["dweight_sums"], write);
            }};
  op.input("x", {rows, in}, x).input("dy", {rows, out}, dy).input("weight", {experts, out, in}, weight);
  op.input("offsets", {experts + 1}, offsets, Type::int64).output("y", {rows, out}, y);
  const Shape weights{experts, out, in};
  op.written("dx", {rows, in}, write, dx).written("dweight", weights, write, dweight);
  cases.push_back(op.written("dweight_sums", weights, write, dweight, Type::sums));
}

}  // namespace

std::vector<OpCase> product_cases() {
  std::vector<OpCase> cases;
  const std::int64_t sizes[][3] = {{1, 1, 1},    {1, 7, 13}, {13, 1, 7}, {65, 63, 1},
                                   {31, 17, 64}, {0, 5, 3},  {5, 0, 3},  {128, 97, 130}};
  for (const auto& [m, n, k] : sizes)
    for (const Transpose ta : {Transpose::no, Transpose::yes})
      for (const Transpose tb : {Transpose::no, Transpose::yes})
        for (const Write write : {Write::overwrite, Write::accumulate})
          add_gemm(cases, m, n, k, ta, tb, write);
  // No terms at all: the gradient of a weight that saw no rows is zero, or unchanged.
  for (const Write write : {Write::overwrite, Write::accumulate}) {
    add_gemm(cases, 5, 3, 0, Transpose::yes, Transpose::no, write);
    add_gemm(cases, 5, 3, 0, Transpose::no, Transpose::yes, write);
    add_grouped(cases, "some_empty", {0, 3, 0, 7, 1}, 11, 9, write);
    add_grouped(cases, "all_empty", {0, 0, 0}, 4, 5, write);
    add_grouped(cases, "all_on_one", {0, 0, 40, 0}, 8, 8, write);
    add_grouped(cases, "one_expert", {37}, 6, 5, write);
    // Rows of whole 16 bytes go to cuBLAS in one call, others expert by expert.
    add_grouped(cases, "whole_16_bytes", {3, 0, 5, 17, 0}, 16, 24, write);
    add_grouped(cases, "around_the_piece", {513, 0, 511, 1, 512}, 7, 5, write);
    add_grouped(cases, "wide_weight", {3, 0, 5}, 513, 3, write);
    add_grouped(cases, "width_one", {2, 1}, 1, 1, write);
  }
  return cases;
}

}  // namespace conclave::test
