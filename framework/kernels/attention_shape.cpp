#include "framework/kernels/attention_shape.h"

namespace conclave {

AttentionShape attention_shape(const Tensor& query, const Tensor& key, const Tensor& value,
                               const KeyRanges& ranges, std::int64_t head_width) {
  AttentionShape z{.sequences = query.dim(0),
                   .queries = query.dim(1),
                   .keys = key.dim(1),
                   .heads = query.dim(2) / head_width,
                   .kv_heads = key.dim(2) / head_width,
                   .head_width = head_width,
                   .value_width = 0};
  check(z.kv_heads > 0 && z.heads % z.kv_heads == 0 && z.heads * head_width == query.dim(2) &&
            z.kv_heads * head_width == key.dim(2) && key.dim(0) == z.sequences,
        "attention: query ", query.shape(), " and key ", key.shape(), " came with head width ", head_width,
        ", which do not match");
  z.value_width = value.dim(2) / z.kv_heads;
  check(z.value_width > 0, "attention: value ", value.shape(), " came, expected ", z.kv_heads,
        " heads of equal width");
  check_tensor(value, "attention", "value", {z.sequences, z.keys, z.kv_heads * z.value_width}, query.dtype());
  check_tensor(ranges.first, "attention", "ranges.first", {z.sequences, z.queries}, DType::int32);
  check_tensor(ranges.last, "attention", "ranges.last", {z.sequences, z.queries}, DType::int32);
  return z;
}

}  // namespace conclave
