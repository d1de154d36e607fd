// Every collective of a communicator against a direct evaluation of its meaning, in every type, over all
// ranks of the job, over one rank, and over MPI with calls cut into small pieces, as tensors beyond 2^31
// elements would be.
#include "parallel/communicator.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <thread>

#include "parallel/mpi.h"
#include "tests/mpi_world.h"

namespace conclave {
namespace {

/// Small whole numbers, so that sums are exact in every type: element i of rank r.
std::int64_t value(std::int64_t rank, std::int64_t i) {
  return (rank + 1) * 7 % 5 + (i * 13 + rank) % 11 - 4;
}

template <class T>
Tensor values_of(std::int64_t rank, Shape shape, Device& device) {
  std::vector<T> values;
  for (std::int64_t i = 0; i < shape.elements(); ++i) values.push_back(static_cast<T>(value(rank, i)));
  return Tensor::from(values, shape, device);
}

template <class T>
void expect_values(const Tensor& tensor, const std::function<std::int64_t(std::int64_t)>& expected) {
  const auto values = tensor.to_host<T>();
  for (std::size_t i = 0; i < values.size(); ++i)
    ASSERT_EQ(values[i], static_cast<T>(expected(static_cast<std::int64_t>(i)))) << "element " << i;
}

/// Rows that rank `from` sends to rank `to`: uneven, and none at all from some to some.
std::int64_t sent_rows(int from, int to) {
  return (from * 3 + to * 5) % 4;
}

template <class T>
void test_collectives(Communicator& ranks, Device& device) {
  const int rank = ranks.rank(), size = ranks.size();
  const auto over_ranks = [&](auto&& combine) {
    return [&, combine](std::int64_t i) {
      std::int64_t result = value(0, i);
      for (int r = 1; r < size; ++r) result = combine(result, value(r, i));
      return result;
    };
  };
  const auto sum = over_ranks([](std::int64_t a, std::int64_t b) { return a + b; });

  for (const Shape& shape : {Shape{}, Shape{0, 3}, Shape{17}, Shape{5, 7}}) {
    Tensor tensor = values_of<T>(rank, shape, device);
    ranks.all_reduce(tensor, ReduceOp::sum, Purpose::gradients);
    expect_values<T>(tensor, sum);
    tensor = values_of<T>(rank, shape, device);
    ranks.all_reduce(tensor, ReduceOp::maximum, Purpose::statistics);
    expect_values<T>(tensor, over_ranks([](auto a, auto b) { return std::max(a, b); }));
    tensor = values_of<T>(rank, shape, device);
    ranks.all_reduce(tensor, ReduceOp::minimum, Purpose::statistics);
    expect_values<T>(tensor, over_ranks([](auto a, auto b) { return std::min(a, b); }));
    tensor = values_of<T>(rank, shape, device);
    Request request = ranks.start_all_reduce(tensor, ReduceOp::sum, Purpose::gradients);
    request.wait();
    EXPECT_TRUE(request.test());
    expect_values<T>(tensor, sum);

    tensor = values_of<T>(rank, shape, device);
    ranks.broadcast(tensor, size - 1, Purpose::parameters);
    expect_values<T>(tensor, [&](std::int64_t i) { return value(size - 1, i); });
  }

  for (const std::int64_t rows : {0, 1, 3}) {
    const std::int64_t width = 5, part = rows * width;
    Tensor all = Tensor::empty({size * rows, width}, dtype_of<T>(), device);
    const auto in_turn = [&](std::int64_t i) { return value(i / part, i % part); };
    ranks.all_gather_rows(values_of<T>(rank, {rows, width}, device), all, Purpose::parameters);
    expect_values<T>(all, in_turn);
    // In place: a rank's rows already stand where they belong.
    all.fill_zero();
    all.slice(rank * rows, (rank + 1) * rows).copy_from(values_of<T>(rank, {rows, width}, device));
    ranks.all_gather_rows(all.slice(rank * rows, (rank + 1) * rows), all, Purpose::parameters);
    expect_values<T>(all, in_turn);

    const Tensor own = Tensor::empty({rows, width}, dtype_of<T>(), device);
    ranks.reduce_scatter_rows(values_of<T>(rank, {size * rows, width}, device), own, Purpose::gradients);
    expect_values<T>(own, [&](std::int64_t i) { return sum(rank * part + i); });
  }

  RowCounts send, receive;
  std::int64_t sending = 0, receiving = 0;
  for (int r = 0; r < size; ++r) {
    sending += send.emplace_back(sent_rows(rank, r));
    receiving += receive.emplace_back(sent_rows(r, rank));
  }
  EXPECT_EQ(exchange_counts(ranks, send, Purpose::dispatch), receive);
  const std::int64_t width = 3;
  const Tensor out = Tensor::empty({receiving, width}, dtype_of<T>(), device);
  ranks.all_to_all_rows(values_of<T>(rank, {sending, width}, device), send, out, receive, Purpose::dispatch);
  std::vector<std::int64_t> expected;
  for (int from = 0; from < size; ++from) {
    std::int64_t begin = 0;
    for (int to = 0; to < rank; ++to) begin += sent_rows(from, to);
    for (std::int64_t i = 0; i < sent_rows(from, rank) * width; ++i)
      expected.push_back(value(from, begin * width + i));
  }
  expect_values<T>(out, [&](std::int64_t i) { return expected[static_cast<std::size_t>(i)]; });
  ranks.barrier();
}

void test_all_types(Communicator& ranks, Device& device) {
  SCOPED_TRACE(device.name());
  test_collectives<float>(ranks, device);
  test_collectives<double>(ranks, device);
  test_collectives<std::int32_t>(ranks, device);
  test_collectives<std::int64_t>(ranks, device);
}

TEST(Communicator, computes_what_it_says) {
  for (Device* device : test::mpi_devices()) test_all_types(*test::mpi_world(), *device);
}

TEST(CommunicatorOnCuda, runs_with_the_others_where_each_rank_has_a_gpu) {
  if (!test::why_no_cuda_for_all().empty())
    GTEST_SKIP() << "no collective ran between GPUs: " << test::why_no_cuda_for_all();
  EXPECT_EQ(test::mpi_devices().back()->kind(), DeviceKind::cuda);
}

/// The ranks that are even like this one, or odd; the last comes first.
std::vector<int> half_backwards(const Communicator& world) {
  std::vector<int> members;
  for (int rank = world.size() - 1; rank >= 0; --rank)
    if (rank % 2 == world.rank() % 2) members.push_back(rank);
  return members;
}

// Parts of the ranks meet by themselves, and several communicators are at work in turn.
TEST(Communicator, on_a_device_splits_like_any_other) {
  Communicator& world = *test::mpi_world();
  for (Device* device : test::mpi_devices()) {
    const auto half = world.split(half_backwards(world), "half");
    test_all_types(*half, *device);
    test_all_types(world, *device);
    test_all_types(*half, *device);
  }
}

TEST(Communicator, refuses_to_mix_devices) {
  Communicator& world = *test::mpi_world();
  const Tensor here = Tensor::zeros({2}, DType::float32),
               there = Tensor::zeros({2 * world.size()}, DType::float32, emulated_device());
  EXPECT_THROW(world.all_gather_rows(here, there, Purpose::parameters), Error);
}

TEST(Communicator, moves_bfloat16_and_does_not_add_it_up) {
  Communicator& world = *test::mpi_world();
  for (Device* device : test::mpi_devices()) {
    const std::vector<BFloat16> own(3, to_bfloat16(static_cast<float>(world.rank() + 1)));
    const Tensor in = Tensor::from(own, {3}, *device),
                 out = Tensor::empty({3 * world.size()}, DType::bfloat16, *device);
    world.all_gather_rows(in, out, Purpose::parameters);
    const auto values = out.to_host<BFloat16>();
    for (int rank = 0; rank < world.size(); ++rank)
      EXPECT_EQ(to_float(values[static_cast<std::size_t>(3 * rank)]), static_cast<float>(rank + 1));
    EXPECT_THROW(world.all_reduce(in, ReduceOp::sum, Purpose::gradients), Error);
  }
}

TEST(Communicator, of_one_rank_is_a_special_case) {
  for (Device* device : test::mpi_devices()) test_all_types(*self_communicator(), *device);
}

TEST(Communicator, cuts_long_tensors_into_calls) {
  if (!launched_under_mpi()) GTEST_SKIP() << "started without mpirun";
  test_all_types(*world_communicator({.largest_count = 4}), cpu_device());
}

TEST(Communicator, sums_of_large_integers_are_exact) {
  Communicator& world = *test::mpi_world();
  const std::int64_t large = (std::int64_t{1} << 60) + 1;
  const Tensor count = Tensor::from(std::vector<std::int64_t>{large}, {1});
  world.all_reduce(count, ReduceOp::sum, Purpose::statistics);
  EXPECT_EQ(count.to_host<std::int64_t>()[0], large * world.size());
}

TEST(Communicator, floating_sums_are_bit_equal_on_all_ranks_and_runs) {
  Communicator& world = *test::mpi_world();
  std::vector<float> values;
  for (int i = 0; i < 10007; ++i) values.push_back(1.0f / static_cast<float>(i + 3 * world.rank() + 1));
  const Tensor once = Tensor::from(values, {10007}), again = Tensor::from(values, {10007});
  world.all_reduce(once, ReduceOp::sum, Purpose::gradients);
  world.all_reduce(again, ReduceOp::sum, Purpose::gradients);
  const Tensor of_root = once.clone();
  world.broadcast(of_root, 0, Purpose::parameters);
  EXPECT_EQ(once.to_host<float>(), again.to_host<float>());
  EXPECT_EQ(once.to_host<float>(), of_root.to_host<float>());
}

TEST(Communicator, several_requests_complete_in_any_order) {
  Communicator& world = *test::mpi_world();
  const Tensor a = Tensor::from(std::vector<double>(1000, world.rank() + 1.0), {1000}), b = a.clone();
  Request first = world.start_all_reduce(a, ReduceOp::sum, Purpose::gradients);
  Request second = world.start_all_reduce(b, ReduceOp::maximum, Purpose::gradients);
  while (!second.test()) {
  }
  first.wait();
  EXPECT_EQ(a.to_host<double>()[999], world.size() * (world.size() + 1) / 2.0);
  EXPECT_EQ(b.to_host<double>()[999], world.size());
}

TEST(Communicator, a_request_that_an_error_drops_does_not_wait_for_partners) {
  Communicator& world = *test::mpi_world();
  const auto other = world.split(world.every_rank(), "other");
  const Tensor tensor = Tensor::from(std::vector<double>(100, 1.0), {100});
  if (world.rank() == 0)
    const Request dropped = other->start_all_reduce(tensor, ReduceOp::sum, Purpose::gradients);
  world.barrier();  // rank 0 would never come here if it waited for the others, who start only now
  if (world.rank() > 0) {
    Request request = other->start_all_reduce(tensor, ReduceOp::sum, Purpose::gradients);
    request.wait();
    EXPECT_EQ(tensor.to_host<double>()[99], world.size());
  }
  world.barrier();
}

TEST(Communicator, counts_the_payload_for_other_ranks_by_purpose) {
  const auto world = test::mpi_world()->split(test::mpi_world()->every_rank(), "counted");
  const int size = world->size();
  const auto before = world->traffic();
  const auto part = world->split(world->every_rank(), "part");
  part->all_reduce(Tensor::zeros({10}, DType::float64), ReduceOp::sum, Purpose::gradients);
  world->all_gather_rows(Tensor::zeros({3}, DType::float32), Tensor::zeros({3 * size}, DType::float32),
                         Purpose::parameters);
  world->reduce_scatter_rows(Tensor::zeros({2 * size}, DType::int32), Tensor::zeros({2}, DType::int32),
                             Purpose::activations);
  const RowCounts one_each(static_cast<std::size_t>(size), 1);
  world->all_to_all_rows(Tensor::zeros({size, 4}, DType::int64), one_each,
                         Tensor::zeros({size, 4}, DType::int64), one_each, Purpose::dispatch);
  const auto counted = [&](Purpose purpose) {
    EXPECT_EQ(world->traffic()[purpose].calls, before[purpose].calls + 1) << name_of(purpose);
    return world->traffic()[purpose].bytes - before[purpose].bytes;
  };
  const std::int64_t others = size - 1;
  EXPECT_EQ(counted(Purpose::gradients), size > 1 ? 80 : 0);
  EXPECT_EQ(counted(Purpose::parameters), size > 1 ? 12 : 0);
  EXPECT_EQ(counted(Purpose::activations), others * 8);
  EXPECT_EQ(counted(Purpose::dispatch), others * 32);
  EXPECT_EQ(world->traffic()[Purpose::combine].calls, before[Purpose::combine].calls);
}

// Whoever comes last has not waited; everybody else has waited for it, whether the call blocks or not.
TEST(Communicator, measures_the_time_spent_waiting_by_purpose) {
  const auto world = test::mpi_world();
  const Tensor tensor = Tensor::zeros({3}, DType::float64);
  const auto waited = [&](Purpose purpose, const auto& call) {
    world->barrier();
    const double before = world->traffic()[purpose].wait_seconds;
    if (world->rank() == 0) std::this_thread::sleep_for(std::chrono::milliseconds(200));
    call();
    return world->traffic()[purpose].wait_seconds - before;
  };
  const double blocking =
      waited(Purpose::combine, [&] { world->all_reduce(tensor, ReduceOp::sum, Purpose::combine); });
  const double started = waited(Purpose::statistics, [&] {
    Request request = world->start_all_reduce(tensor, ReduceOp::sum, Purpose::statistics);
    request.wait();
  });
  for (const double seconds : {blocking, started}) {
    EXPECT_GE(seconds, 0);
    if (world->rank() > 0) {
      EXPECT_GT(seconds, 0.1);
    }
  }
}

TEST(Communicator, refuses_a_split_that_this_rank_is_not_in) {
  Communicator& world = *test::mpi_world();
  EXPECT_THROW(world.split({world.size()}, "others"), Error);
}

TEST(Communicator, splits_into_the_ranks_that_were_named_in_their_order) {
  Communicator& world = *test::mpi_world();
  const auto half = world.split(half_backwards(world), "half");
  const int members = (world.size() + 1 - world.rank() % 2) / 2;
  EXPECT_EQ(half->size(), members);
  EXPECT_EQ(half->rank(), members - 1 - world.rank() / 2);
  const Tensor sum = Tensor::from(std::vector<std::int64_t>{world.rank()}, {1});
  half->all_reduce(sum, ReduceOp::sum, Purpose::agreement);
  std::int64_t expected = 0;
  for (int r = world.rank() % 2; r < world.size(); r += 2) expected += r;
  EXPECT_EQ(sum.to_host<std::int64_t>()[0], expected);
}

TEST(Communicator, gathers_and_broadcasts_text) {
  Communicator& world = *test::mpi_world();
  const auto text_of = [](int rank) { return std::string(static_cast<std::size_t>(rank * 9), 'a') + "ü\0x"; };
  const auto texts = all_gather_text(world, text_of(world.rank()));
  ASSERT_EQ(static_cast<int>(texts.size()), world.size());
  for (int r = 0; r < world.size(); ++r) EXPECT_EQ(texts[static_cast<std::size_t>(r)], text_of(r));
  EXPECT_EQ(all_gather_text(world, ""), std::vector<std::string>(texts.size()));
  EXPECT_EQ(broadcast_text(world, text_of(world.rank()), world.size() - 1), text_of(world.size() - 1));
}

TEST(Communicator, knows_its_place_on_the_node) {
  Communicator& world = *test::mpi_world();
  const NodePlace place = world.node_place();
  EXPECT_EQ(place.size, world.size());  // tests run on one machine
  EXPECT_EQ(place.rank, world.rank());
}

/// The sentence that an action fails with, and whose fault it is.
template <class Action>
std::string sentence_of(Fault fault, Action&& action) {
  try {
    action();
  } catch (const Error& error) {
    EXPECT_EQ(error.fault(), fault) << error.what();
    return error.what();
  }
  return "nothing was thrown";
}

TEST(Communicator, refuses_shapes_that_do_not_fit) {
  Communicator& world = *test::mpi_world();
  const Tensor rows = Tensor::zeros({2, 3}, DType::float32);
  const Tensor wrong = Tensor::zeros({2 * world.size() + 1, 3}, DType::float32);
  EXPECT_NE(sentence_of(Fault::internal, [&] { world.all_gather_rows(rows, wrong, Purpose::parameters); })
                .find("out is float32 [" + std::to_string(2 * world.size() + 1) + ", 3]"),
            std::string::npos);
  EXPECT_THROW(world.reduce_scatter_rows(wrong, rows, Purpose::parameters), Error);
  EXPECT_THROW(world.broadcast(rows, world.size(), Purpose::parameters), Error);
  EXPECT_THROW(world.all_reduce(Tensor(), ReduceOp::sum, Purpose::parameters), Error);
  const RowCounts counts(static_cast<std::size_t>(world.size()), 1), short_counts(counts.size() + 1, 1);
  const Tensor even = Tensor::zeros({world.size(), 2}, DType::float32), other = even.clone();
  EXPECT_THROW(world.all_to_all_rows(even, short_counts, other, counts, Purpose::dispatch), Error);
  EXPECT_THROW(world.all_to_all_rows(even, counts, even, counts, Purpose::dispatch), Error);
}

TEST(Mpi, errors_are_sentences_with_mpis_own_words) {
  if (!launched_under_mpi()) GTEST_SKIP() << "started without mpirun";
  EXPECT_NO_THROW(check_mpi(MPI_SUCCESS, "MPI_Bcast", "communicator world"));
  const std::string sentence = sentence_of(
      Fault::machine, [] { check_mpi(MPI_ERR_TRUNCATE, "MPI_Bcast", "communicator world, rank 1 of 2"); });
  EXPECT_EQ(sentence.find("MPI_Bcast failed on communicator world, rank 1 of 2: "), 0u) << sentence;
  EXPECT_GT(sentence.size(), 50u);
}

TEST(Mpi, error_handler_of_the_caller_stays) {
  if (!launched_under_mpi()) GTEST_SKIP() << "started without mpirun";
  const auto ranks = mpi_communicator(MPI_COMM_WORLD, "caller's");
  EXPECT_EQ(ranks->size(), test::mpi_world()->size());
  MPI_Errhandler handler = MPI_ERRHANDLER_NULL;
  MPI_Comm_get_errhandler(MPI_COMM_WORLD, &handler);
  EXPECT_EQ(handler, MPI_ERRORS_ARE_FATAL);
}

TEST(Mpi, knows_that_mpirun_started_it) {
  if (!launched_under_mpi()) GTEST_SKIP() << "started without mpirun";
  EXPECT_EQ(rank_before_mpi(), test::mpi_world()->rank());
}

}  // namespace
}  // namespace conclave
