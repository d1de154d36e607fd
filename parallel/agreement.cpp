#include "parallel/agreement.h"

#include "framework/base/foreign_exception.h"
#include "framework/base/random.h"

namespace conclave {

std::optional<Error> failure_of(const std::function<void()>& action) {
  try {
    action();
    return std::nullopt;
  } catch (...) {
    return error_of(std::current_exception());
  }
}

void agree(Communicator& communicator, const std::function<void()>& action) {
  const std::optional<Error> failure = failure_of(action);
  const std::int64_t none = communicator.size();
  const Tensor lowest = Tensor::from(std::vector<std::int64_t>{failure ? communicator.rank() : none}, {1});
  communicator.all_reduce(lowest, ReduceOp::minimum, Purpose::agreement);
  const std::int64_t rank = lowest.to_host<std::int64_t>()[0];
  if (rank == none) return;
  if (communicator.size() == 1) throw *failure;

  const int root = static_cast<int>(rank);
  const bool speaks = communicator.rank() == root;
  const Tensor fault = Tensor::from(std::vector<std::int64_t>{speaks ? failure->exit_code() : 0}, {1});
  communicator.broadcast(fault, root, Purpose::agreement);
  std::string sentence = broadcast_text(communicator, speaks ? failure->what() : "", root);
  // An error that an inner agreement reported already names its rank.
  if (!sentence.starts_with("[rank ")) sentence = join_text("[rank ", rank, "] ", sentence);
  throw Error(static_cast<Fault>(fault.to_host<std::int64_t>()[0]), sentence, Reach::all_ranks);
}

bool is_true_on_any(Communicator& communicator, bool own) {
  const Tensor found = Tensor::from(std::vector<std::int64_t>{own ? 1 : 0}, {1});
  communicator.all_reduce(found, ReduceOp::maximum, Purpose::agreement);
  return found.item() > 0;
}

void require_same(Communicator& communicator, const std::string& name, const std::string& value) {
  const std::int64_t ranks = communicator.size();
  const auto hash = static_cast<std::int64_t>(RandomKey(0).with(value).value());
  const Tensor own =
      Tensor::from(std::vector<std::int64_t>{hash, static_cast<std::int64_t>(value.size())}, {1, 2});
  const Tensor all = Tensor::empty({ranks, 2}, DType::int64);
  communicator.all_gather_rows(own, all, Purpose::agreement);
  const auto hashes = all.to_host<std::int64_t>();
  for (std::size_t rank = 1; rank < static_cast<std::size_t>(ranks); ++rank)
    if (hashes[2 * rank] != hashes[0] || hashes[2 * rank + 1] != hashes[1])
      throw Error(
          Fault::request,
          join_text(name, " is not the same on all ", ranks, " ranks: rank ", rank,
                    " holds another than rank 0. Start every rank with the same files and arguments."),
          Reach::all_ranks);
}

}  // namespace conclave
