// The reducer against plain sums over ranks of what each rank contributed, in whole numbers, so that equality
// is exact.
#include "parallel/gradient_reducer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "framework/device/stand_in/cuda_runtime.h"
#include "tests/mpi_world.h"

namespace conclave {
namespace {

constexpr int parameter_count = 6;
constexpr std::int64_t width = 20;  // not a multiple of the alignment: buckets hold gaps

struct Model {
  ParameterSet set{MeshLayout(test::mpi_world()->size(), {}), test::mpi_world()->rank()};
  Model(DType dtype = DType::float64, int frozen = -1, Device& device = cpu_device()) {
    for (int p = 0; p < parameter_count; ++p)
      set.create(join_text("p", p), {width}, {}, Decay::yes).frozen = p == frozen;
    set.materialize(dtype, 1, device);
  }
};

double contribution(int rank, int parameter, int micro_batch) {
  return 1.0 + 2 * rank + 100 * parameter + 1000 * micro_batch;
}

/// Uses the parameters in order; backward contributes to them in reverse, as a network does.
void run_micro_batch(Model& model, int rank, int micro_batch, const std::function<bool(int)>& used) {
  Tape tape;
  for (int p = 0; p < parameter_count; ++p) {
    const Parameter& parameter = model.set.all()[static_cast<std::size_t>(p)];
    if (!used(p)) continue;
    const Variable x = parameter.use(tape);
    tape.record("test", [gradient = x.gradient, value = contribution(rank, p, micro_batch),
                         dtype = x.value.dtype(), &device = x.value.device()] {
      const Tensor part =
          dtype == DType::float64
              ? Tensor::from(std::vector<double>(width, value), {width})
              : Tensor::from(std::vector<float>(width, static_cast<float>(value)), {width}, device);
      gradient.add(part);
    });
  }
  tape.backward();
}

double expected_sum(int ranks, int parameter, int micro_batches) {
  double sum = 0;
  for (int r = 0; r < ranks; ++r)
    for (int m = 0; m < micro_batches; ++m) sum += contribution(r, parameter, m);
  return sum;
}

std::vector<double> gradient_of(const Model& model, int parameter) {
  const Tensor& gradients = model.set.gradients();
  const Tensor part = gradients.part(model.set.all()[static_cast<std::size_t>(parameter)].offset, {width});
  if (gradients.dtype() == DType::float64) return part.to_host<double>();
  const auto values = part.to_host<float>();
  return {values.begin(), values.end()};
}

const auto all_used = [](int) { return true; };
const GradientReducerOptions one_each{.bucket_bytes = 1};

TEST(GradientReducer, sums_over_ranks_and_micro_batches) {
  Communicator& world = *test::mpi_world();
  for (Device* device : test::mpi_devices())
    for (const DType dtype : {DType::float32, DType::float64})
      for (const std::int64_t bucket_bytes : {1, 300, 1 << 22}) {
        if (dtype == DType::float64 && device->kind() != DeviceKind::cpu)
          continue;  // kernels there know none
        Model model(dtype, -1, *device);
        const Mesh mesh(test::mpi_world(), {});
        GradientReducer reducer(model.set, mesh, {.bucket_bytes = bucket_bytes});
        for (int step = 0; step < 3; ++step) {
          model.set.clear_gradients();
          const int micro_batches = 1 + step;
          for (int m = 0; m < micro_batches; ++m) {
            if (m == micro_batches - 1) reducer.begin_last_micro_batch();
            run_micro_batch(model, world.rank(), m, all_used);
          }
          reducer.finish();
          for (int p = 0; p < parameter_count; ++p)
            EXPECT_EQ(gradient_of(model, p),
                      std::vector<double>(width, expected_sum(world.size(), p, micro_batches)))
                << "parameter " << p << ", step " << step << ", bucket_bytes " << bucket_bytes;
        }
      }
}

// The device does the last of backward before the first sum where everything is as late as can be, and the
// first sum before the last of backward where collectives are as early as can be: neither waits for the
// other.
TEST(GradientReducer, on_a_device_neither_sums_nor_backward_wait_for_the_other) {
  if (test::mpi_world()->size() == 1) GTEST_SKIP() << "one rank sums nothing";
  for (const auto sharding : {OptimizerSharding::none, OptimizerSharding::zero1})
    for (const auto mode : {emulated::StreamMode::deferred, emulated::StreamMode::racing}) {
      Model model(DType::float32, -1, emulated_device());
      const Mesh mesh(test::mpi_world(), {});
      GradientReducer reducer(model.set, mesh, {.bucket_bytes = 1, .sharding = sharding});
      emulated::set_stream_mode(mode);
      emulated::take_history();
      reducer.begin_last_micro_batch();
      run_micro_batch(model, test::mpi_world()->rank(), 0, all_used);
      reducer.finish();
      emulated::set_stream_mode(emulated::StreamMode::eager);
      const std::vector<std::string> history = emulated::take_history();
      const auto is_sum = [](const std::string& what) { return what.starts_with("gradients: nccl"); };
      const auto is_backward = [](const std::string& what) { return what.starts_with("test: "); };
      const auto first_sum = std::find_if(history.begin(), history.end(), is_sum);
      const auto last_of_backward = std::find_if(history.rbegin(), history.rend(), is_backward).base();
      ASSERT_EQ(std::count_if(history.begin(), history.end(), is_sum), parameter_count);
      ASSERT_GE(std::count_if(history.begin(), history.end(), is_backward), parameter_count);
      EXPECT_EQ(first_sum < last_of_backward, mode == emulated::StreamMode::racing);
    }
}

TEST(GradientReducer, sends_buckets_while_backward_goes_on) {
  Communicator& world = *test::mpi_world();
  Model model;
  const Mesh mesh(test::mpi_world(), {});
  GradientReducer reducer(model.set, mesh, one_each);
  EXPECT_EQ(reducer.buckets(), parameter_count);
  const std::int64_t before = world.traffic()[Purpose::gradients].calls;
  std::vector<std::int64_t> sent_when_used;
  for (const int micro_batch : {0, 1}) {
    if (micro_batch == 1) reducer.begin_last_micro_batch();
    Tape tape;
    for (int p = 0; p < parameter_count; ++p) {
      const Variable x = model.set.all()[static_cast<std::size_t>(p)].use(tape);
      tape.record("test", [gradient = x.gradient, &world, &sent_when_used, before] {
        sent_when_used.push_back(world.traffic()[Purpose::gradients].calls - before);
        gradient.add(Tensor::zeros({width}, DType::float64));
      });
    }
    tape.backward();
  }
  reducer.finish();
  // Nothing leaves in the first micro-batch; in the last, each parameter leaves before the next one's
  // backward.
  std::vector<std::int64_t> expected(2 * parameter_count, 0);
  if (world.size() > 1)
    for (int p = 0; p < parameter_count; ++p) expected[static_cast<std::size_t>(parameter_count + p)] = p;
  EXPECT_EQ(sent_when_used, expected);
  EXPECT_EQ(reducer.started_early(), world.size() > 1 ? parameter_count : 0);
}

TEST(GradientReducer, unused_parameters_become_zero_or_the_sum_of_those_who_used_them) {
  Communicator& world = *test::mpi_world();
  Model model;
  const Mesh mesh(test::mpi_world(), {});
  GradientReducer reducer(model.set, mesh, one_each);
  for (int step = 0; step < 2; ++step) {
    model.set.clear_gradients();
    reducer.begin_last_micro_batch();
    // Nobody uses p3, only rank 0 uses p1: ranks that disagree must still sum the same buckets.
    run_micro_batch(model, world.rank(), 0, [&](int p) { return p != 3 && (p != 1 || world.rank() == 0); });
    reducer.finish();
    for (int p = 0; p < parameter_count; ++p) {
      const double expected = p == 3 ? 0 : expected_sum(p == 1 ? 1 : world.size(), p, 1);
      EXPECT_EQ(gradient_of(model, p), std::vector<double>(width, expected)) << "parameter " << p;
    }
  }
  EXPECT_EQ(reducer.started_early(), world.size() > 1 ? 2 : 0);  // p5 and p4; p3 holds back the rest
}

TEST(GradientReducer, frozen_parameters_are_not_sent) {
  Communicator& world = *test::mpi_world();
  Model model(DType::float64, 2);
  const Mesh mesh(test::mpi_world(), {});
  GradientReducer reducer(model.set, mesh);
  EXPECT_EQ(reducer.buckets(), 2);  // before and after the frozen one
  const std::int64_t before = world.traffic()[Purpose::gradients].bytes;
  reducer.begin_last_micro_batch();
  run_micro_batch(model, world.rank(), 0, all_used);
  reducer.finish();
  const std::int64_t sent = (parameter_count - 1) * model.set.room_of(model.set.all()[0]);  // gaps included
  EXPECT_EQ(world.traffic()[Purpose::gradients].bytes - before, world.size() > 1 ? sent * 8 : 0);
  for (int p = 0; p < parameter_count; ++p)
    EXPECT_EQ(gradient_of(model, p),
              std::vector<double>(width, p == 2 ? 0 : expected_sum(world.size(), p, 1)));
}

TEST(GradientReducer, sharded_each_replica_owns_its_part_and_gathers_the_rest) {
  Communicator& world = *test::mpi_world();
  for (const std::int64_t bucket_bytes : {1, 300, 1 << 22}) {
    Model model;
    const Mesh mesh(test::mpi_world(), {});
    GradientReducer reducer(model.set, mesh,
                            {.bucket_bytes = bucket_bytes, .sharding = OptimizerSharding::zero1});
    reducer.begin_last_micro_batch();
    run_micro_batch(model, world.rank(), 0, all_used);
    reducer.finish();
    const Tensor owned = Tensor::zeros({model.set.elements()}, DType::float64);
    std::int64_t elements = 0;
    for (const OwnedSpan& span : reducer.owned()) {
      EXPECT_EQ(span.state_offset, elements);
      elements += span.elements;
      owned.part(span.offset, {span.elements})
          .copy_from(model.set.gradients().part(span.offset, {span.elements}));
    }
    EXPECT_EQ(reducer.owned_elements(), elements);
    // Together the replicas own every element once.
    const Tensor total = Tensor::from(std::vector<std::int64_t>{elements}, {1});
    world.all_reduce(total, ReduceOp::sum, Purpose::agreement);
    EXPECT_EQ(total.to_host<std::int64_t>()[0], parameter_count * width);
    reducer.gather(owned);
    double squares = 0;
    for (int p = 0; p < parameter_count; ++p) {
      const double sum = expected_sum(world.size(), p, 1);
      EXPECT_EQ(owned.part(model.set.all()[static_cast<std::size_t>(p)].offset, {width}).to_host<double>(),
                std::vector<double>(width, sum));
      squares += static_cast<double>(width) * sum * sum;
    }
    EXPECT_NEAR(reducer.norm_of(reducer.squares().item()), std::sqrt(squares), 1e-9 * std::sqrt(squares));
  }
}

TEST(GradientReducer, works_without_overlap) {
  Communicator& world = *test::mpi_world();
  Model model;
  const Mesh mesh(test::mpi_world(), {});
  GradientReducer reducer(model.set, mesh, one_each);
  run_micro_batch(model, world.rank(), 0, all_used);
  reducer.finish();
  EXPECT_EQ(reducer.started_early(), 0);
  for (int p = 0; p < parameter_count; ++p)
    EXPECT_EQ(gradient_of(model, p), std::vector<double>(width, expected_sum(world.size(), p, 1)));
}

TEST(GradientReducer, refuses_a_second_backward_after_sending) {
  Communicator& world = *test::mpi_world();
  if (world.size() == 1) GTEST_SKIP() << "one rank sends nothing";
  Model model;
  const Mesh mesh(test::mpi_world(), {});
  GradientReducer reducer(model.set, mesh, one_each);
  reducer.begin_last_micro_batch();
  run_micro_batch(model, world.rank(), 0, all_used);
  try {
    run_micro_batch(model, world.rank(), 1, all_used);
    ADD_FAILURE() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("completed the gradient of p5 again"), std::string::npos)
        << error.what();
  }
  EXPECT_THROW(reducer.begin_last_micro_batch(), Error);
  reducer.finish();
}

}  // namespace
}  // namespace conclave
