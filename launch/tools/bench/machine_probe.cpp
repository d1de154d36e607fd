#include "launch/tools/bench/machine_probe.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "framework/autograd/ops/elementwise.h"
#include "framework/kernels/kernels.h"
#include "framework/kernels/rope.h"
#include "launch/plan/collective_time.h"
#include "launch/plan/plan_time.h"
#include "launch/tools/bench/bench.h"
#include "parallel/agreement.h"

namespace conclave {
namespace {

constexpr double unlimited = 1e18;

/// The best of at least three tries and a fiftieth of a second, by processor_seconds().
double best_seconds(const std::function<void()>& work) {
  double best = unlimited, spent = 0;
  for (int tries = 0; tries < 3 || spent < 0.02; ++tries) {
    const double once = processor_seconds(work);
    best = std::min(best, once);
    spent += once;
  }
  return best;
}

Tensor random(Shape shape) {
  return random_tensor(shape, DType::float32);
}

double number(std::int64_t count) {
  return static_cast<double>(count);
}

/// Forward and backward of an op on next to nothing: what a kernel costs besides its work.
double call_seconds() {
  constexpr int ops = 200;
  const Tensor x = random({2, 8});
  const auto chain = [&] {
    Tape tape;
    Variable y{x, Gradient::of(x)};
    for (int i = 0; i < ops; ++i) y = add(tape, y, {x, {}});
    y.gradient.add(x.clone());
    tape.backward();
  };
  return best_seconds(chain) / (2 * ops);
}

/// Products as a layer does them: forward, the gradient of its input, that of its weight.
std::vector<WorkSample> dense_products(double call) {
  struct Sizes {
    std::int64_t rows, in, out;
  };
  std::vector<WorkSample> samples;
  for (const Sizes& s : {Sizes{1024, 1024, 1024}, Sizes{2048, 512, 512}, Sizes{2048, 256, 256},
                         Sizes{512, 256, 2048}, Sizes{1024, 128, 128}, Sizes{2048, 256, 16}}) {
    const Tensor x = random({s.rows, s.in}), weight = random({s.out, s.in}), y = random({s.rows, s.out});
    const Tensor dx = x.clone(), dweight = weight.clone(), result = y.clone();
    const Kernels& kernels = kernels_of(x);
    const double m = number(s.rows), n = number(s.out), k = number(s.in);
    for (const std::function<void()>& work : std::vector<std::function<void()>>{
             [&] { kernels.gemm(x, Transpose::no, weight, Transpose::yes, result, Write::overwrite); },
             [&] { kernels.gemm(y, Transpose::no, weight, Transpose::no, dx, Write::overwrite); },
             [&] { kernels.gemm(y, Transpose::yes, x, Transpose::no, dweight, Write::overwrite); }})
      samples.push_back({2 * m * n * k, operand_bytes(m, n, k, 4), best_seconds(work) - call});
  }
  return samples;
}

std::vector<WorkSample> grouped_products(double call) {
  struct Sizes {
    std::int64_t experts, rows_each, in, out;
  };
  std::vector<WorkSample> samples;
  for (const Sizes& s : {Sizes{64, 16, 256, 256}, Sizes{64, 64, 256, 256}, Sizes{16, 128, 512, 512},
                         Sizes{64, 32, 128, 128}, Sizes{8, 256, 512, 512}}) {
    const std::int64_t rows = s.experts * s.rows_each;
    std::vector<std::int64_t> offsets;
    for (std::int64_t e = 0; e <= s.experts; ++e) offsets.push_back(e * s.rows_each);
    const RowOffsets order(Tensor::from(offsets, {s.experts + 1}), offsets);
    const Tensor x = random({rows, s.in}), weight = random({s.experts, s.out, s.in}),
                 y = random({rows, s.out});
    const Tensor dx = x.clone(), dweight = weight.clone(), result = y.clone();
    const Kernels& kernels = kernels_of(x);
    const double count = number(s.experts), m = number(s.rows_each), n = number(s.out), k = number(s.in);
    for (const std::function<void()>& work : std::vector<std::function<void()>>{
             [&] { kernels.grouped_linear(x, weight, order, result); },
             [&] { kernels.grouped_linear_dx(y, weight, order, dx, Write::overwrite); },
             [&] { kernels.grouped_linear_dweight(y, x, order, dweight, Write::overwrite); }})
      samples.push_back(
          {count * 2 * m * n * k, count * operand_bytes(m, n, k, 4), best_seconds(work) - call});
  }
  return samples;
}

std::vector<WorkSample> attention_passes(double call) {
  constexpr std::int64_t sequences = 2, length = 512, heads = 4;
  std::vector<WorkSample> samples;
  for (const std::int64_t width : {32, 64, 128}) {
    const Shape shape{sequences, length, heads * width};
    const Tensor q = random(shape), k = random(shape), v = random(shape), out = random(shape);
    const Tensor dq = random(shape), dk = random(shape), dv = random(shape);
    std::vector<std::int32_t> columns(static_cast<std::size_t>(sequences * length));
    for (std::size_t t = 0; t < columns.size(); ++t)
      columns[t] = static_cast<std::int32_t>(t % static_cast<std::size_t>(length));
    const KeyRanges causal{Tensor::zeros({sequences, length}, DType::int32),
                           Tensor::from(columns, {sequences, length})};
    const Tensor log_sum_exp = Tensor::empty({sequences, heads, length}, DType::float32);
    const Kernels& kernels = kernels_of(q);
    const double scale = 1 / std::sqrt(number(width));
    const double scores = number(sequences * heads) * attention_scores(length);
    const double forward =
        best_seconds([&] { kernels.attention(q, k, v, causal, width, scale, out, log_sum_exp); });
    const double backward = best_seconds(
        [&] { kernels.attention_backward(q, k, v, causal, width, scale, out, log_sum_exp, v, dq, dk, dv); });
    samples.push_back({4 * number(width) * scores, scores, forward - call});
    samples.push_back({10 * number(width) * scores, scores, backward - call});
  }
  return samples;
}

/// The work done over the seconds of all of it.
class Rate {
 public:
  void note(double amount, double seconds) {
    amount_ += amount;
    seconds_ += seconds;
  }
  double per_second() const { return amount_ / seconds_; }

 private:
  double amount_ = 0, seconds_ = 0;
};

/// Bytes as plan_time.cpp counts them.
double pass_rate(double call) {
  constexpr std::int64_t tokens = 2048, width = 256, head = 64, top_k = 2, experts = 16;
  const Tensor x = random({tokens, width}), y = random({tokens, width}), z = random({tokens, width});
  const Tensor weight = random({width}), dweight = weight.clone(), inverse = random({tokens});
  std::vector<std::int32_t> place(tokens), chosen(tokens * top_k);
  std::iota(place.begin(), place.end(), 0);
  for (std::size_t i = 0; i < chosen.size(); ++i) chosen[i] = static_cast<std::int32_t>(i * 7 % experts);
  const Tensor positions = Tensor::from(place, {tokens});
  const Kernels& kernels = kernels_of(x);
  const RowOrder order = kernels.sort_by_expert(Tensor::from(chosen, {tokens, top_k}), experts);
  const Tensor rows = random({tokens * top_k, width}), drows = rows.clone();
  const Tensor weights = random({tokens, top_k}), dweights = weights.clone();
  const Shape by_head{tokens, width / head, head};
  const double bytes = static_cast<double>(x.bytes());
  Rate rate;
  const auto note = [&](double numbers, const std::function<void()>& work) {
    rate.note(numbers * bytes, best_seconds(work) - call);
  };
  note(2, [&] { kernels.rms_norm(x, weight, 1e-6, y, inverse); });
  note(3, [&] { kernels.rms_norm_backward(x, weight, inverse, y, z, dweight, Write::overwrite); });
  note(2, [&] {
    kernels.family<RopeKernels>().rope(x.view(by_head), positions, {.theta = 1e4}, head, Rotation::forward,
                                       y.view(by_head));
  });
  note(3, [&] { kernels.add(x, y, z); });
  note(3, [&] { kernels.add_scaled(x, 0.5, z); });
  note(2 * top_k, [&] { kernels.permute_rows(x, order, rows); });
  note(top_k + 1, [&] { kernels.permute_rows_backward(rows, order, z); });
  note(top_k + 1, [&] { kernels.combine_rows(rows, weights, order, y); });
  note(2 * top_k + 1, [&] { kernels.combine_rows_backward(rows, weights, order, y, drows, dweights); });
  return rate.per_second();
}

double exponential_rate(double call) {
  constexpr std::int64_t rows = 1024, width = 512;
  const Tensor gate = random({rows, width}), up = random({rows, width}), y = random({rows, width});
  const Tensor dgate = gate.clone(), dup = up.clone(), logits = y.clone();
  const Tensor targets = Tensor::zeros({rows}, DType::int32);
  const Tensor statistics = Tensor::empty({rows, 3}, DType::float64);
  const Tensor log_sum_exp = Tensor::zeros({rows}, DType::float64);
  const Kernels& kernels = kernels_of(gate);
  Rate rate;
  const auto note = [&](const std::function<void()>& work) {
    rate.note(number(rows * width), best_seconds(work) - call);
  };
  note([&] { kernels.swiglu(gate, up, y); });
  note([&] { kernels.swiglu_backward(gate, up, y, dgate, dup); });
  note([&] { kernels.cross_entropy_statistics(logits, targets, 0, statistics); });
  note([&] { kernels.cross_entropy_gradient(logits, targets, 0, log_sum_exp, 1e-3, 0); });
  return rate.per_second();
}

double optimizer_rate() {
  constexpr std::int64_t elements = std::int64_t{1} << 23;
  const Tensor value = random({elements}), gradient = value.clone();
  const Tensor moment1 = Tensor::zeros({elements}, DType::float32), moment2 = moment1.clone();
  const Tensor sum = Tensor::zeros({1}, DType::float64);
  const Pieces whole = Pieces::of({{.first = 0, .first_state = 0, .elements = elements}}, cpu_device());
  const AdamWStep step{1e-3, 0.9, 0.95, 1e-8, 0.1, 0.05, 1};
  const Kernels& kernels = kernels_of(value);
  return 8.0 * static_cast<double>(value.bytes()) / best_seconds([&] {
           kernels.sum_of_squares(gradient, sum, Write::overwrite);
           kernels.adamw(step, whole, gradient, value, moment1, moment2);
         });
}

/// Best of several calls that all ranks make together.
double collective_seconds(Communicator& ranks, int calls, const std::function<void()>& call) {
  double best = unlimited;
  call();
  for (int attempt = 0; attempt < 5; ++attempt) {
    ranks.barrier();
    best = std::min(best, seconds_of([&] {
                            for (int i = 0; i < calls; ++i) call();
                          }) / calls);
  }
  return best;
}

LinkRates link_rates(Communicator& ranks) {
  const std::int64_t size = ranks.size();
  const Tensor one = Tensor::zeros({1}, DType::float64);
  const Tensor few = Tensor::zeros({size}, DType::float32), got = few.clone();
  const RowCounts one_each(static_cast<std::size_t>(size), 1);
  // Beyond caches, where gradients come from.
  const Tensor own = Tensor::zeros({1 << 22}, DType::float32),
               all = Tensor::zeros({size << 22}, DType::float32);
  const double rounds = std::ceil(std::log2(number(size)));
  LinkRates link;
  link.latency_seconds =
      collective_seconds(ranks, 200, [&] { ranks.all_reduce(one, ReduceOp::sum, Purpose::agreement); }) /
      rounds;
  const double exchange = collective_seconds(
      ranks, 100, [&] { ranks.all_to_all_rows(few, one_each, got, one_each, Purpose::agreement); });
  link.message_seconds =
      size > 2 ? std::max(0.0, (exchange - link.latency_seconds) / number(size - 2)) : link.latency_seconds;
  const double gather =
      collective_seconds(ranks, 3, [&] { ranks.all_gather_rows(own, all, Purpose::agreement); });
  link.bytes_per_second =
      number(size - 1) * static_cast<double>(own.bytes()) / (gather - rounds * link.latency_seconds);
  return link;
}

/// Nodes are told apart by ranks alone, so each must hold as many, one after the other. Collective.
void check_placement(Communicator& world, const NodePlace& place) {
  const Tensor sizes = Tensor::from(std::vector<std::int64_t>{place.size, -place.size}, {2});
  world.all_reduce(sizes, ReduceOp::maximum, Purpose::agreement);
  const std::int64_t *bounds = sizes.data<std::int64_t>(), most = bounds[0], least = -bounds[1];
  agree(world, [&] {
    check(most == least && (world.rank() - place.rank) % place.size == 0, Fault::request,
          "bench --machine: rank ", world.rank(), " is number ", place.rank, " of ", place.size,
          " on its node, and nodes hold ", least, " to ", most,
          " ranks; expected as many on each, one after the other (mpirun --map-by slot or core)");
  });
}

void measure_network(Communicator& world, const NodePlace& place, MachineModel& machine) {
  check_placement(world, place);
  std::vector<int> of_node, of_place;  // this node's ranks, and those at the same place of every node
  for (const int rank : world.every_rank()) {
    if (rank / place.size == world.rank() / place.size) of_node.push_back(rank);
    if (rank % place.size == place.rank) of_place.push_back(rank);
  }
  const auto node = world.split(of_node, "node");
  const auto across = world.split(of_place, "across");
  if (across->size() > 1) {
    machine.between_nodes = link_rates(*across);
    machine.between_nodes.bytes_per_second *= place.size;
  }
  if (node->size() > 1) machine.within_node = link_rates(*node);
  if (node->size() == 1) machine.within_node = machine.between_nodes;
  // Two numbers read and one written; in a collective, time for this is too little to be told from its noise.
  machine.reduced_bytes_per_second = machine.pass_bytes_per_second / 3;
  const Tensor sums = Tensor::zeros({1 << 22}, DType::float32);
  const double bytes = static_cast<double>(sums.bytes());
  const RankGroup all{world.size(), 1};
  const double started = collective_seconds(
      world, 3, [&] { world.start_all_reduce(sums, ReduceOp::sum, Purpose::agreement).wait(); });
  const CollectiveTime time(machine, world.size());
  const double tree = time.all_reduce_by_tree(all, bytes), best = time.all_reduce(all, bytes);
  machine.nonblocking_all_reduce = std::abs(started - tree) < std::abs(started - best) ? "tree" : "best";
}

}  // namespace

FittedRates fit_rates(const std::vector<WorkSample>& samples) {
  // Normal equations of a x / t + b y / t = 1.
  double xx = 0, xy = 0, yy = 0, x = 0, y = 0;
  for (const WorkSample& sample : samples) {
    const double u = sample.x / sample.seconds, v = sample.y / sample.seconds;
    xx += u * u;
    xy += u * v;
    yy += v * v;
    x += u;
    y += v;
  }
  const double determinant = xx * yy - xy * xy;
  double a = (x * yy - y * xy) / determinant, b = (y * xx - x * xy) / determinant;
  if (!(a > 0)) a = 0, b = y / yy;
  if (!(b > 0)) a = x / xx, b = 0;
  return {a > 0 ? 1 / a : unlimited, b > 0 ? 1 / b : unlimited};
}

namespace {

/// Three digits are more than a measurement is worth.
double rounded(double number) {
  if (number == 0) return 0;
  const double unit = std::pow(10, std::floor(std::log10(number)) - 2);
  // Divided, where that is exact: 1e-6 is no binary fraction and its inverse is one number.
  return unit < 1 ? std::round(number / unit) / std::round(1 / unit) : std::round(number / unit) * unit;
}

void round_all(MachineModel& m) {
  for (double* number :
       {&m.products.operations_per_second, &m.products.operand_bytes_per_second,
        &m.grouped_products.operations_per_second, &m.grouped_products.operand_bytes_per_second,
        &m.attention_operations_per_second, &m.scores_per_second, &m.pass_bytes_per_second,
        &m.exponentials_per_second, &m.optimizer_bytes_per_second, &m.call_seconds,
        &m.within_node.latency_seconds, &m.within_node.message_seconds, &m.within_node.bytes_per_second,
        &m.between_nodes.latency_seconds, &m.between_nodes.message_seconds, &m.between_nodes.bytes_per_second,
        &m.reduced_bytes_per_second})
    *number = rounded(*number);
}

}  // namespace

MachineModel measure_machine(Communicator& world, int threads) {
  const NodePlace place = world.node_place();
  const auto processors = static_cast<int>(::sysconf(_SC_NPROCESSORS_ONLN));
  agree(world, [&] {
    check(place.size * threads <= processors, Fault::request, "bench --machine: ", place.size, " ranks of ",
          threads, " threads came on ", processors,
          " processors; expected at most one thread each, or the rates would be those of shares");
  });
  MachineModel machine;
  machine.name = join_text("measured on ", world.size(), world.size() == 1 ? " rank of " : " ranks of ",
                           threads, threads == 1 ? " thread" : " threads");
  machine.processors_per_node = place.size * threads;
  machine.ranks_per_node = place.size;
  world.barrier();
  const double call = machine.call_seconds = call_seconds();
  const auto together = [&](double rate) {  // of the ranks' mean processor
    return sum_over_ranks(world, rate) / world.size() / threads;
  };
  const auto fitted = [&](const std::vector<WorkSample>& samples) {
    const FittedRates rates = fit_rates(samples);
    return ProductRates{together(rates.x), together(rates.y)};
  };
  machine.products = fitted(dense_products(call));
  machine.grouped_products = fitted(grouped_products(call));
  const ProductRates attention = fitted(attention_passes(call));
  machine.attention_operations_per_second = attention.operations_per_second;
  machine.scores_per_second = attention.operand_bytes_per_second;
  machine.pass_bytes_per_second = together(pass_rate(call));
  machine.exponentials_per_second = together(exponential_rate(call));
  machine.optimizer_bytes_per_second = together(optimizer_rate());
  if (world.size() > 1) measure_network(world, place, machine);
  round_all(machine);
  // Each rank has its own clock: the first one's readings are everybody's.
  return parse_machine(broadcast_text(world, to_yaml(machine), 0), "the measured machine");
}

}  // namespace conclave
