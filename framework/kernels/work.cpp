// The work that each kernel has to do at least: bytes read and written, and floating-point operations. The
// profile sets times against it, and the plan counts it.
#include <algorithm>

#include "framework/kernels/kernels.h"

namespace conclave {
namespace {

using Work = Profile::Work;

double count(std::int64_t number) {
  return static_cast<double>(number);
}
double count(const Tensor& tensor) {
  return count(tensor.elements());
}

double bytes_of(std::initializer_list<Tensor> tensors) {
  double sum = 0;
  for (const Tensor& tensor : tensors) sum += tensor.defined() ? static_cast<double>(tensor.bytes()) : 0;
  return sum;
}

/// Bytes of a result that is added to, since it is read as well.
double again(const Tensor& result, Write write) {
  return write == Write::accumulate ? bytes_of({result}) : 0;
}

/// True where the host may look at integers without waiting.
bool host_reads(const Device& device) {
  return device.kind() == DeviceKind::cpu || device.kind() == DeviceKind::counting;
}

/// The bytes of x in these pieces; where they would have to be waited for, all of x.
double read_bytes(const Tensor& x, const Pieces& pieces) {
  if (!host_reads(x.device()) || pieces.count() == 0) return bytes_of({x});
  const std::int64_t* table = pieces.table.data<std::int64_t>();
  double elements = 0;
  for (std::int64_t i = 0; i < pieces.count(); ++i) elements += count(table[3 * i + 2]);
  return elements * static_cast<double>(element_bytes(x.dtype()));
}

/// The floating-point operations of a call in which each query head meets each key that it sees with
/// `of_head` products as wide as a head and `of_value` as wide as a value. It is 0 on a device, which would
/// have to be waited for.
double attention_operations(const AttentionShape& z, const KeyRanges& ranges, double of_head,
                            double of_value) {
  if (!host_reads(ranges.first.device())) return 0;
  const std::vector<std::int32_t> first = ranges.first.to_host<std::int32_t>(),
                                  last = ranges.last.to_host<std::int32_t>();
  double pairs = 0;
  for (std::size_t i = 0; i < first.size(); ++i) pairs += std::max(0, last[i] - first[i] + 1);
  return 2 * pairs * count(z.heads) * (of_head * count(z.head_width) + of_value * count(z.value_width));
}

}  // namespace

void put_work(Kernels& kernels) {
  kernels.gemm.set_work([](const Tensor& a, Transpose transpose_a, const Tensor& b, Transpose,
                           const Tensor& c, Write write) -> Work {
    return {bytes_of({a, b, c}) + again(c, write),
            2 * count(c) * count(transpose_a == Transpose::no ? a.dim(1) : a.dim(0))};
  });
  kernels.grouped_linear.set_work(
      [](const Tensor& x, const Tensor& weight, const RowOffsets&, const Tensor& y) -> Work {
        return {bytes_of({x, weight, y}), 2 * count(x) * count(weight.dim(1))};
      });
  kernels.grouped_linear_dx.set_work(
      [](const Tensor& dy, const Tensor& weight, const RowOffsets&, const Tensor& dx, Write write) -> Work {
        return {bytes_of({dy, weight, dx}) + again(dx, write), 2 * count(dy) * count(weight.dim(2))};
      });
  kernels.grouped_linear_dweight.set_work(
      [](const Tensor& dy, const Tensor& x, const RowOffsets&, const Tensor& dweight, Write write) -> Work {
        return {bytes_of({dy, x, dweight}) + again(dweight, write), 2 * count(dy) * count(x.dim(1))};
      });
  kernels.convert.set_work([](const Tensor& x, const Tensor& y) -> Work { return {bytes_of({x, y})}; });
  kernels.add_scaled.set_work([](const Tensor& x, double, const Tensor& y) -> Work {
    return {bytes_of({x, y, y})};
  });
  kernels.add.set_work([](const Tensor& a, const Tensor& b, const Tensor& sum) -> Work {
    return {bytes_of({a, b, sum})};
  });
  kernels.sum_of_squares.set_work(
      [](const Tensor& x, const Tensor&, Write) -> Work { return {bytes_of({x})}; });
  kernels.sum_of_squares_of_pieces.set_work(
      [](const Tensor& x, const Pieces& pieces, const Tensor&) -> Work { return {read_bytes(x, pieces)}; });
  kernels.weighted_sum.set_work([](const Tensor& x, const Tensor& factors, const Tensor&) -> Work {
    return {bytes_of({x, factors})};
  });
  kernels.multiply.set_work([](const Tensor& x, const Tensor&, const Tensor& y) -> Work {
    return {bytes_of({x, y})};
  });
  kernels.swiglu.set_work([](const Tensor& gate, const Tensor& up, const Tensor& y) -> Work {
    return {bytes_of({gate, up, y}), 0, count(y)};
  });
  kernels.swiglu_backward.set_work([](const Tensor& gate, const Tensor& up, const Tensor& dy,
                                      const Tensor& dgate, const Tensor& dup) -> Work {
    return {bytes_of({gate, up, dy, dgate, dup}), 0, count(dy)};
  });
  kernels.embedding.set_work([](const Tensor&, const Tensor&, const Tensor& y) -> Work {
    return {bytes_of({y, y})};
  });
  kernels.embedding_backward.set_work([](const Tensor&, const Tensor& dy, const Tensor&, Write) -> Work {
    return {bytes_of({dy, dy})};
  });
  kernels.rms_norm.set_work(
      [](const Tensor& x, const Tensor&, double, const Tensor& y, const Tensor&) -> Work {
        return {bytes_of({x, y})};
      });
  kernels.rms_norm_backward.set_work([](const Tensor& x, const Tensor&, const Tensor&, const Tensor& dy,
                                        const Tensor& dx, const Tensor&, Write) -> Work {
    return {bytes_of({x, dy, dx})};
  });
  kernels.attention.set_work([](const Tensor& query, const Tensor& key, const Tensor& value,
                                const KeyRanges& ranges, std::int64_t head_width, double, const Tensor& out,
                                const Tensor&) -> Work {
    const AttentionShape z = attention_shape(query, key, value, ranges, head_width);
    return {bytes_of({query, key, value, out}), attention_operations(z, ranges, 1, 1)};
  });
  kernels.attention_backward.set_work(
      [](const Tensor& query, const Tensor& key, const Tensor& value, const KeyRanges& ranges,
         std::int64_t head_width, double, const Tensor& out, const Tensor&, const Tensor& dout,
         const Tensor& dquery, const Tensor& dkey, const Tensor& dvalue) -> Work {
        const AttentionShape z = attention_shape(query, key, value, ranges, head_width);
        return {bytes_of({query, key, value, out, dout, dquery, dkey, dvalue}),
                attention_operations(z, ranges, 3, 2)};
      });
  kernels.cross_entropy_statistics.set_work(
      [](const Tensor& logits, const Tensor&, std::int64_t, const Tensor&) -> Work {
        return {bytes_of({logits}), 0, count(logits)};
      });
  kernels.cross_entropy_losses.set_work([](const Tensor& statistics, const Tensor&, std::int64_t,
                                           const Tensor&,
                                           const Tensor&) -> Work { return {bytes_of({statistics})}; });
  kernels.cross_entropy_gradient.set_work(
      [](const Tensor& logits, const Tensor&, std::int64_t, const Tensor&, double, double) -> Work {
        return {bytes_of({logits, logits}), 0, count(logits)};
      });
  kernels.route.set_work(
      [](const Tensor& logits, const Tensor&, const RouteRule&, const RouteResult& result) -> Work {
        return {bytes_of({logits, result.probabilities}), 0, count(logits)};
      });
  kernels.route_backward.set_work([](const RouteResult& result, const RouteRule&, const Tensor&,
                                     const Tensor&, const Tensor&, const Tensor&,
                                     const Tensor& dlogits) -> Work {
    return {bytes_of({result.probabilities, dlogits}), 0, count(dlogits)};
  });
  kernels.sum_over_documents.set_work([](const Tensor& logits, const Tensor&, const Tensor& sums) -> Work {
    return {bytes_of({logits, sums}), 0, count(logits)};
  });
  kernels.mask_outside_pools.set_work([](const Tensor&, const Tensor& sums, const Tensor& logits) -> Work {
    return {bytes_of({sums, logits})};
  });
  kernels.sort_by_expert.set_work(
      [](const Tensor& experts, std::int64_t) -> Work { return {3 * bytes_of({experts})}; });
  kernels.permute_rows.set_work([](const Tensor&, const RowOrder&, const Tensor& rows) -> Work {
    return {bytes_of({rows, rows})};
  });
  kernels.permute_rows_backward.set_work([](const Tensor& drows, const RowOrder&, const Tensor& dx) -> Work {
    return {bytes_of({drows, dx})};
  });
  kernels.combine_rows.set_work(
      [](const Tensor& rows, const Tensor&, const RowOrder&, const Tensor& y) -> Work {
        return {bytes_of({rows, y})};
      });
  kernels.combine_rows_backward.set_work([](const Tensor& rows, const Tensor&, const RowOrder&,
                                            const Tensor& dy, const Tensor& drows, const Tensor&) -> Work {
    return {bytes_of({rows, drows, dy})};
  });
  kernels.adamw.set_work([](const AdamWStep&, const Pieces&, const Tensor&, const Tensor&,
                            const Tensor& moment1,
                            const Tensor&) -> Work { return {7 * bytes_of({moment1})}; });
}

}  // namespace conclave
