// How collectives between devices fail: what goes wrong while they are under way is a sentence at the next
// call or wait, and an abort ends what would wait for ever. By itself, because an abort is for the whole
// process.
#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "parallel/device_collectives.h"
#include "parallel/nccl/stand_in.h"
#include "tests/mpi_world.h"

namespace conclave {
namespace {

Tensor three_numbers() {
  return Tensor::from(std::vector<float>{1, 2, 3}, {3}, emulated_device());
}

template <class Action>
std::string sentence_of(Action&& action) {
  try {
    action();
  } catch (const Error& error) {
    EXPECT_EQ(error.exit_code(), 5);
    return error.what();
  }
  return "nothing was thrown";
}

// MPI, which the stand-in is over, counts in int.
TEST(StandIn, RefusesCountsThatAnIntDoesNotHold) {
  emulated::ncclUniqueId id;
  emulated::ncclComm_t alone = nullptr;
  ASSERT_EQ(emulated::ncclGetUniqueId(&id), emulated::ncclSuccess);
  ASSERT_EQ(emulated::ncclCommInitRank(&alone, 1, id, 0), emulated::ncclSuccess);
  const Tensor tensor = three_numbers();
  const std::size_t many = (std::size_t{1} << 32) + 1;  // 1, cut to an int
  const auto stream = static_cast<emulated::cudaStream_t>(emulated_device().stream());
  emulated::ncclGroupStart();
  EXPECT_EQ(emulated::ncclSend(tensor.raw(), many, emulated::ncclFloat32, 0, alone, stream),
            emulated::ncclInvalidArgument);
  EXPECT_EQ(emulated::ncclRecv(tensor.raw(), many, emulated::ncclFloat32, 0, alone, stream),
            emulated::ncclInvalidArgument);
  EXPECT_EQ(emulated::ncclGroupEnd(), emulated::ncclSuccess);
  EXPECT_EQ(emulated::ncclCommDestroy(alone), emulated::ncclSuccess);
}

TEST(DeviceFailure, UnderWayIsASentenceAtTheNextCall) {
  Communicator& world = *test::mpi_world();
  const auto ranks = world.split(world.every_rank(), "unlucky");
  const Tensor tensor = three_numbers();
  ranks->all_reduce(tensor, ReduceOp::sum, Purpose::gradients);
  emulated::plant_nccl_failure(emulated::ncclRemoteError);
  const std::string expected =
      join_text("nccl: a collective under way failed on communicator unlucky, rank ", world.rank(), " of ",
                world.size(), ": remote process exited or there was a network error");
  Request request = ranks->start_all_reduce(tensor, ReduceOp::sum, Purpose::gradients);
  EXPECT_EQ(sentence_of([&] { request.wait(); }), expected);
  EXPECT_EQ(sentence_of([&] { request.test(); }), expected);
  EXPECT_EQ(sentence_of([&] { ranks->broadcast(tensor, 0, Purpose::parameters); }), expected);
  // Other communicators work on, as does this one for tensors of the host.
  world.all_reduce(tensor, ReduceOp::sum, Purpose::gradients);
  ranks->all_reduce(Tensor::zeros({1}, DType::float32), ReduceOp::sum, Purpose::gradients);
}

// The collective fails after everybody has asked about it: then the host is told when it takes the values.
TEST(DeviceFailure, OfWhatRunsLaterIsASentenceWhereTheHostTakesTheValues) {
  Communicator& world = *test::mpi_world();
  const auto ranks = world.split(world.every_rank(), "late");
  const Tensor tensor = three_numbers();
  ranks->all_reduce(tensor, ReduceOp::sum, Purpose::gradients);
  emulated::set_stream_mode(emulated::StreamMode::deferred);
  emulated::plant_nccl_failure(emulated::ncclSystemError);
  ranks->all_reduce(tensor, ReduceOp::sum, Purpose::gradients);
  EXPECT_EQ(sentence_of([&] { tensor.to_host<float>(); }),
            join_text("nccl: a collective under way failed on communicator late, rank ", world.rank(), " of ",
                      world.size(), ": unhandled system error"));
  emulated::set_stream_mode(emulated::StreamMode::eager);
}

TEST(DeviceFailure, AnAbortEndsWhatWouldWaitForEver) {
  Communicator& world = *test::mpi_world();
  const auto ranks = world.split(world.every_rank(), "left alone");
  const Tensor tensor = three_numbers();
  ranks->all_reduce(tensor, ReduceOp::sum, Purpose::gradients);
  if (world.rank() == 0) {
    std::thread watchdog([] {
      std::this_thread::sleep_for(std::chrono::milliseconds(300));
      abort_device_collectives();
    });
    const auto begin = std::chrono::steady_clock::now();
    ranks->all_reduce(tensor, ReduceOp::sum, Purpose::gradients);  // nobody else comes
    EXPECT_GT(std::chrono::steady_clock::now() - begin, std::chrono::milliseconds(200));
    watchdog.join();
  }
  world.barrier();
}

}  // namespace
}  // namespace conclave
