// Whole matrices: each on exactly one of its replicas, as even as matrices allow, while the sums of gradients
// and the gathered values are what they are without sharding.
#include "parallel/ownership.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "parallel/gradient_reducer.h"
#include "tests/mpi_world.h"

namespace conclave {
namespace {

/// A stack of experts, matrices of several sizes and vectors between them, on all kinds of replicas.
void create_parameters(ParameterSet& set) {
  const auto create = [&](const char* name, Shape shape, const Placement& placement) {
    set.create(name, shape, {}, Decay::yes, placement);
  };
  create("embedding", {12, 5}, {});
  create("norm", {7}, {});
  create("projection", {6, 4}, {{}, Axis::data_tensor});
  create("experts.up", {8, 3, 5}, {{{0, Axis::expert}}, Axis::expert_data});
  create("experts.down", {8, 5, 3}, {{{0, Axis::expert}}, Axis::expert_data});
  create("frozen", {4, 4}, {});
  create("head", {9, 5}, {});
  set.all()[5].frozen = true;
}

OwnedUnit matrices_but_embeddings(const Parameter& parameter) {
  return parameter.name == "embedding" ? OwnedUnit::element : OwnedUnit::matrix;
}

TEST(Ownership, DealsEachMatrixOnceInStretchesAsEvenAsTheyCanBe) {
  ParameterSet set;
  create_parameters(set);
  set.materialize(DType::float32, 1);
  std::vector<const Parameter*> parameters;
  std::int64_t total = 0, largest = 0;
  for (const Parameter& parameter : set.all()) {
    parameters.push_back(&parameter);
    total += parameter.shape.elements();
    largest = std::max(largest, matrix_elements(parameter));
  }
  EXPECT_EQ(largest, 60);
  for (const int replicas : {1, 2, 3, 4, 7, 100}) {
    SCOPED_TRACE(replicas);
    std::map<const Parameter*, std::int64_t> dealt;
    std::vector<std::int64_t> load(static_cast<std::size_t>(replicas));
    int last = 0;
    for (const MatrixRun& run : deal_matrices(parameters, replicas)) {
      ASSERT_TRUE(0 <= run.owner && run.owner < replicas) << run.owner;
      EXPECT_EQ(run.offset, run.parameter->offset + dealt[run.parameter]) << run.parameter->name;
      EXPECT_EQ(run.elements % matrix_elements(*run.parameter), 0) << run.parameter->name;
      EXPECT_GE(run.owner, last);
      last = run.owner;
      dealt[run.parameter] += run.elements;
      load[static_cast<std::size_t>(run.owner)] += run.elements;
    }
    for (const Parameter& parameter : set.all())
      EXPECT_EQ(dealt[&parameter], parameter.shape.elements()) << parameter.name;
    EXPECT_LE(*std::max_element(load.begin(), load.end()), total / replicas + largest);
  }
}

TEST(Ownership, APartOfAMatrixIsNoMatrix) {
  ParameterSet set;
  create_parameters(set);
  set.materialize(DType::float32, 1);
  const Parameter& up = set.find("experts.up");
  const std::vector<OwnedMatrix> two = matrices_of({&up, up.offset + 15, 30, 100});
  ASSERT_EQ(two.size(), 2u);
  EXPECT_EQ(two[1].shape, (Shape{3, 5}));
  EXPECT_EQ(two[1].offset, up.offset + 30);
  EXPECT_EQ(two[1].state_offset, 115);
  const Parameter& norm = set.find("norm");
  EXPECT_EQ(matrices_of({&norm, norm.offset, 7, 0}).at(0).shape, (Shape{1, 7}));
  EXPECT_THROW(matrices_of({&up, up.offset + 14, 30, 0}), Error);
  EXPECT_THROW(matrices_of({&up, up.offset, 29, 0}), Error);
}

/// A rank's gradient of an element of a parameter: whole numbers, so that sums are exact.
double contribution(int rank, std::int64_t element) {
  return static_cast<double>(1 + 3 * rank + 7 * element);
}

/// Gradients of one step, as backward would leave them.
void fill_gradients(ParameterSet& set, int rank) {
  set.clear_gradients();
  for (const Parameter& parameter : set.all()) {
    if (parameter.frozen) continue;
    std::vector<double> values(static_cast<std::size_t>(parameter.shape.elements()));
    for (std::size_t i = 0; i < values.size(); ++i)
      values[i] = contribution(rank, static_cast<std::int64_t>(i));
    parameter.gradient.add(Tensor::from(values, parameter.shape));
  }
}

struct Ranks {
  MeshDegrees degrees;
  Mesh mesh{test::mpi_world(), degrees};
  ParameterSet set{mesh.layout(), mesh.world().rank()};
  explicit Ranks(MeshDegrees wanted) : degrees(wanted) {
    create_parameters(set);
    set.materialize(DType::float64, 3);
  }
};

std::vector<MeshDegrees> layouts() {
  std::vector<MeshDegrees> all = {{}};
  if (test::mpi_world()->size() % 2 == 0) {
    all.push_back({.expert = 2});
    all.push_back({.tensor = 2});
  }
  return all;
}

TEST(Ownership, SumsAndGathersWholeMatricesAsWithoutSharding) {
  for (const MeshDegrees& degrees : layouts())
    for (const std::int64_t bucket_bytes : {1, 300, 1 << 22}) {
      SCOPED_TRACE(
          join_text("tensor ", degrees.tensor, ", expert ", degrees.expert, ", bucket_bytes ", bucket_bytes));
      Ranks whole(degrees), dealt(degrees);
      const int rank = dealt.mesh.world().rank();
      GradientReducer plain(whole.set, whole.mesh, {.bucket_bytes = bucket_bytes});
      GradientReducer sharded(dealt.set, dealt.mesh,
                              {.bucket_bytes = bucket_bytes,
                               .sharding = OptimizerSharding::zero1,
                               .owned_unit = matrices_but_embeddings});
      fill_gradients(whole.set, rank);
      fill_gradients(dealt.set, rank);
      plain.finish();
      sharded.finish();

      // Owned gradients are the sums, and the norm counts each element once.
      std::int64_t elements = 0;
      for (const OwnedSpan& span : sharded.owned()) {
        EXPECT_EQ(span.state_offset, elements);
        elements += span.elements;
        EXPECT_EQ(dealt.set.gradients().part(span.offset, {span.elements}).to_host<double>(),
                  whole.set.gradients().part(span.offset, {span.elements}).to_host<double>())
            << span.parameter->name;
        if (span.parameter->name != "embedding") {
          EXPECT_NO_THROW(matrices_of(span));
        }
        EXPECT_FALSE(span.parameter->frozen);
      }
      EXPECT_EQ(sharded.owned_elements(), elements);
      const double norm = plain.norm_of(plain.squares().item());
      EXPECT_NEAR(sharded.norm_of(sharded.squares().item()), norm, 1e-12 * norm);

      // Each element has one owner among its replicas.
      const Tensor owners = Tensor::zeros({dealt.set.elements()}, DType::float64);
      for (const OwnedSpan& span : sharded.owned())
        owners.part(span.offset, {span.elements})
            .copy_from(Tensor::from(std::vector<double>(static_cast<std::size_t>(span.elements), 1.0),
                                    {span.elements}));
      for (const Parameter& parameter : dealt.set.all()) {
        const Tensor part = owners.part(parameter.offset, {parameter.shape.elements()}).clone();
        dealt.mesh.axis(parameter.placement.replicas).all_reduce(part, ReduceOp::sum, Purpose::agreement);
        EXPECT_EQ(part.to_host<double>(),
                  std::vector<double>(static_cast<std::size_t>(parameter.shape.elements()),
                                      parameter.frozen ? 0.0 : 1.0))
            << parameter.name;
      }

      // Owners change their values, and after the gather all replicas have them all.
      for (const auto& [ranks, spans] :
           {std::pair{&whole, plain.owned()}, std::pair{&dealt, sharded.owned()}})
        for (const OwnedSpan& span : spans)
          kernels_of(ranks->set.values())
              .add_scaled(ranks->set.gradients().part(span.offset, {span.elements}), -0.5,
                          ranks->set.values().part(span.offset, {span.elements}));
      sharded.gather_values();
      for (const Parameter& parameter : dealt.set.all())
        EXPECT_EQ(parameter.value.to_host<double>(), whole.set.find(parameter.name).value.to_host<double>())
            << parameter.name;
    }
}

}  // namespace
}  // namespace conclave
