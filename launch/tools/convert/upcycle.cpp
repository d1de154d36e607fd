#include "launch/tools/convert/upcycle.h"

#include <algorithm>

#include "framework/base/error.h"
#include "framework/base/random.h"
#include "layers/moe/recipe.h"

namespace conclave {

std::int64_t parts_of(const UpcycleOptions& options, const ModelRecipe& dense) {
  check(options.experts >= 1 && options.top_k >= 1 && options.top_k <= options.experts, Fault::request,
        "--experts ", options.experts, " and --top-k ", options.top_k,
        " came; upcycling needs both, and at most as many experts of a token as there are");
  check(options.kind == UpcycleOptions::Kind::split || options.parts <= 1, Fault::request, "--parts ",
        options.parts, " came, but --upcycle copy makes every expert a whole copy; expected --upcycle split");
  const std::int64_t parts = options.kind == UpcycleOptions::Kind::copy ? 1
                             : options.parts > 0                        ? options.parts
                                                                        : options.top_k;
  check(options.experts % parts == 0, Fault::request, options.experts,
        " experts are no whole number of copies of ", parts, " parts; expected --experts as a multiple of ",
        parts);
  check(dense.intermediate_size % parts == 0, Fault::request,
        "the dense MLP's intermediate_size: ", dense.intermediate_size, " cannot be cut into ", parts,
        " parts; expected --parts that divides it");
  return parts;
}

ModelRecipe upcycled(const ModelRecipe& dense, const UpcycleOptions& options) {
  ModelRecipe model = dense;
  set_dense_blocks(model, {});
  model.moe.num_experts = options.experts;
  model.moe.num_experts_per_tok = options.top_k;
  model.moe.moe_intermediate_size = dense.intermediate_size / parts_of(options, dense);
  return model;
}

double down_scale(const ModelRecipe& model, std::int64_t parts) {
  const RouterRecipe& router = model.moe.router;
  const double top_k = static_cast<double>(model.moe.num_experts_per_tok);
  const double sum = router.norm_topk_prob ? 1.0
                     : router.kind == RouterKind::sigmoid
                         ? top_k / 2
                         : top_k / static_cast<double>(model.moe.num_experts);
  return static_cast<double>(parts) / (sum * router.routed_scaling_factor);
}

template <class T>
std::vector<T> experts_of_rows(const std::vector<T>& dense, std::int64_t intermediate, std::int64_t hidden,
                               std::int64_t experts, std::int64_t parts) {
  std::vector<T> stack;
  stack.reserve(static_cast<std::size_t>(experts / parts * intermediate * hidden));
  for (std::int64_t copy = 0; copy < experts / parts; ++copy)
    stack.insert(stack.end(), dense.begin(), dense.end());  // its parts are runs of rows already
  return stack;
}

template <class T>
std::vector<T> experts_of_columns(const std::vector<T>& dense, std::int64_t intermediate, std::int64_t hidden,
                                  std::int64_t experts, std::int64_t parts, double scale) {
  const std::int64_t width = intermediate / parts;
  std::vector<T> stack;
  stack.reserve(static_cast<std::size_t>(experts * width * hidden));
  for (std::int64_t expert = 0; expert < experts; ++expert)
    for (std::int64_t row = 0; row < hidden; ++row) {
      const auto begin =
          dense.begin() + static_cast<std::ptrdiff_t>(row * intermediate + expert % parts * width);
      std::transform(begin, begin + static_cast<std::ptrdiff_t>(width), std::back_inserter(stack),
                     [scale](T value) { return static_cast<T>(scale * static_cast<double>(value)); });
    }
  return stack;
}

template <class T>
std::vector<T> upcycled_router(const std::string& name, std::int64_t experts, std::int64_t hidden,
                               std::int64_t parts, double range, std::uint64_t seed) {
  const RandomKey key = RandomKey(seed).with("upcycle").with(name);
  std::vector<T> rows(static_cast<std::size_t>(experts * hidden));
  for (std::int64_t expert = 0; expert < experts; ++expert)
    for (std::int64_t i = 0; i < hidden; ++i)
      rows[static_cast<std::size_t>(expert * hidden + i)] =
          static_cast<T>(range * key.normal(static_cast<std::uint64_t>(expert / parts * hidden + i)));
  return rows;
}

#define CONCLAVE_UPCYCLE(T)                                                                                \
  template std::vector<T> experts_of_rows(const std::vector<T>&, std::int64_t, std::int64_t, std::int64_t, \
                                          std::int64_t);                                                   \
  template std::vector<T> experts_of_columns(const std::vector<T>&, std::int64_t, std::int64_t,            \
                                             std::int64_t, std::int64_t, double);                          \
  template std::vector<T> upcycled_router(const std::string&, std::int64_t, std::int64_t, std::int64_t,    \
                                          double, std::uint64_t);
CONCLAVE_UPCYCLE(float)
CONCLAVE_UPCYCLE(double)
#undef CONCLAVE_UPCYCLE

}  // namespace conclave
