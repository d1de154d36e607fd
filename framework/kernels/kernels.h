// Kernels are the computations that every device must offer, with their shapes; the compiler says what a new
// backend still lacks. Kernels only compute: no differentiation, no allocation of results, no communication.
// Ops (autograd/) call them. Floating-point tensors are float32, float64 or bfloat16, all of one type within
// a call unless said otherwise. "Sums" are tensors of sum_type, which is float32 where the others are
// bfloat16, else the same type. Values stored as bfloat16 are computed with in float32 and rounded once, when
// they are written. Names of sizes: tokens = sequences x length, hidden, heads, head_width, experts, top_k,
// vocabulary, rows (tokens sorted by expert).
#pragma once

#include <map>
#include <memory>
#include <typeindex>

#include "framework/kernels/attention_shape.h"
#include "framework/kernels/kernel.h"
#include "framework/kernels/pieces.h"

namespace conclave {

enum class Transpose { no, yes };
enum class Write { overwrite, accumulate };

/// Rows offsets[e] .. offsets[e+1]-1 belong to expert e: int64 [experts + 1]. Where the host knows the same
/// numbers already, they come along, so that no call waits for them again.
class RowOffsets : public Tensor {
 public:
  RowOffsets() = default;
  RowOffsets(const Tensor& offsets) : Tensor(offsets) {}
  RowOffsets(const Tensor& offsets, std::vector<std::int64_t> known)
      : Tensor(offsets), known_(std::make_shared<const std::vector<std::int64_t>>(std::move(known))) {}
  /// Waits for the device when the host does not know them.
  std::vector<std::int64_t> on_host() const { return known_ ? *known_ : to_host<std::int64_t>(); }

 private:
  std::shared_ptr<const std::vector<std::int64_t>> known_;
};

/// RowOrder says how rows of experts are laid out.
struct RowOrder {
  RowOffsets offsets;
  Tensor row_of_slot;   // int32 [tokens, top_k]; the row of this assignment, -1 when it goes nowhere
  Tensor token_of_row;  // int32 [rows]
  Tensor slot_of_row;   // int32 [rows]; token * top_k + k
};

/// RouteRule says how router logits s become probabilities p, weights w and a choice of experts.
struct RouteRule {
  enum class Score { softmax, sigmoid };
  /// The score q that experts are weighed and chosen by: softmax(s) or sigmoid(s). The probabilities p are q
  /// made to sum to 1 over all experts. For the sigmoid that is softmax(log sigmoid(s)).
  Score score = Score::softmax;
  bool renormalise = true;  // the chosen q are made to sum to 1
  double scale = 1;         // then multiplied by this
  /// Only experts of the best chosen_groups of `groups` consecutive groups may be chosen. A group is as good
  /// as its best expert (softmax: DeepSeek-V2, arXiv 2405.04434) or its best two (sigmoid: DeepSeek-V3,
  /// arXiv 2412.19437).
  std::int64_t groups = 1, chosen_groups = 1;
  /// float64 [experts], added to q for the choice alone (Wang et al., arXiv 2408.15664); undefined: none.
  Tensor selection_bias;
  /// given: RouteResult::experts holds the choice already, and is only weighed; -1 is a slot without an
  /// expert, and never the first one of a real token.
  enum class Choice { best, given };
  Choice choice = Choice::best;
};

/// A router's decision, and what it keeps for its backward.
struct RouteResult {
  Tensor experts;                            // int32 [tokens, top_k]; -1 for padding
  Tensor weights;                            // sums [tokens, top_k]
  Tensor probabilities;                      // sums [tokens, experts]
  Tensor log_sum_exp;                        // sums [tokens]
  Tensor counts;                             // int64 [sequences, experts]
  Tensor probability_sums;                   // float64 [sequences, experts]
  Tensor z_sum;                              // float64 [1]; sum over real tokens of log_sum_exp^2
  std::int64_t first_token = 0, length = 0;  // token t belongs to sequence (first_token + t) / length
};

/// One step of AdamW, as the same for all parameters.
struct AdamWStep {
  double learning_rate, beta1, beta2, epsilon;
  double correction1, correction2;  // 1 - beta^step
  double gradient_scale;            // clipping
};

class Kernels;
/// Says what each kernel has to do at least (work.cpp).
void put_work(Kernels& kernels);
/// Joins the families of kernels that have headers of their own (families.cpp).
void put_families(Kernels& kernels);

/// The kernels of one back end: a table that is filled once, by functions each of which knows some of them. A
/// test names the kernels that a back end lacks.
class Kernels {
  std::vector<AnyKernel*> table_;  // before the kernels, which enter themselves
  std::map<std::type_index, std::shared_ptr<void>> families_;

 public:
  using Part = void (*)(Kernels& kernels);
  explicit Kernels(std::initializer_list<Part> parts) {
    put_work(*this);
    put_families(*this);
    for (const Part part : parts) part(*this);
  }
  Kernels(const Kernels&) = delete;
  Kernels& operator=(const Kernels&) = delete;

  const std::vector<AnyKernel*>& all() const { return table_; }

  /// A family is a struct of kernels in a header of its own. It is made from this table, which they enter.
  template <class Family>
  void join() {
    families_[typeid(Family)] = std::make_shared<Family>(table_);
  }
  template <class Family>
  Family& family() {
    return *static_cast<Family*>(found(typeid(Family)));
  }
  template <class Family>
  const Family& family() const {
    return *static_cast<const Family*>(found(typeid(Family)));
  }

  // --- matrix products
  // -----------------------------------------------------------------------------------------

  /// c [m, n] = op(a) op(b), or += with Write::accumulate. op(a) is [m, k], op(b) is [k, n]. The type of c is
  /// that of a and b, or their sum_type.
  Kernel<void(const Tensor& a, Transpose transpose_a, const Tensor& b, Transpose transpose_b, const Tensor& c,
              Write write)>
      gemm{table_, "gemm"};
  /// y[r] = weight[e(r)] x[r]: x [rows, in], weight [experts, out, in], y [rows, out].
  Kernel<void(const Tensor& x, const Tensor& weight, const RowOffsets& offsets, const Tensor& y)>
      grouped_linear{table_, "grouped_linear"};
  /// dx[r] = weight[e(r)]^T dy[r]
  Kernel<void(const Tensor& dy, const Tensor& weight, const RowOffsets& offsets, const Tensor& dx,
              Write write)>
      grouped_linear_dx{table_, "grouped_linear_dx"};
  /// dweight[e] = sum over rows of e of dy[r] x[r]^T; zero for an expert without rows. The type of dweight is
  /// that of dy and x, or their sum_type.
  Kernel<void(const Tensor& dy, const Tensor& x, const RowOffsets& offsets, const Tensor& dweight,
              Write write)>
      grouped_linear_dweight{table_, "grouped_linear_dweight"};

  // --- elementwise and reductions
  // ------------------------------------------------------------------------------

  /// y = x, rounded to the type of y; both of any floating-point type.
  Kernel<void(const Tensor& x, const Tensor& y)> convert{table_, "convert"};
  /// y += factor * x; y has the type of x, or its sum_type. Every device takes float64 here, for losses.
  Kernel<void(const Tensor& x, double factor, const Tensor& y)> add_scaled{table_, "add_scaled"};
  /// sum = a + b
  Kernel<void(const Tensor& a, const Tensor& b, const Tensor& sum)> add{table_, "add"};
  /// The sum of squares of x in a fixed order; sum float64 [1].
  Kernel<void(const Tensor& x, const Tensor& sum, Write write)> sum_of_squares{table_, "sum_of_squares"};
  /// The sum of squares of these pieces of x, each times its factor; pieces of factor 0 are not read. The
  /// types are x float32 or float64, sum float64 [1].
  Kernel<void(const Tensor& x, const Pieces& pieces, const Tensor& sum)> sum_of_squares_of_pieces{
      table_, "sum_of_squares_of_pieces"};
  /// The sum of factors * x in a fixed order: x and factors float64 of one shape, sum float64 [1].
  Kernel<void(const Tensor& x, const Tensor& factors, const Tensor& sum)> weighted_sum{table_,
                                                                                       "weighted_sum"};
  /// y = factor * x with a factor that only the device knows: x and y float64 of one shape, factor float64
  /// [1].
  Kernel<void(const Tensor& x, const Tensor& factor, const Tensor& y)> multiply{table_, "multiply"};
  /// y = silu(gate) * up, all [rows, width]
  Kernel<void(const Tensor& gate, const Tensor& up, const Tensor& y)> swiglu{table_, "swiglu"};
  Kernel<void(const Tensor& gate, const Tensor& up, const Tensor& dy, const Tensor& dgate, const Tensor& dup)>
      swiglu_backward{table_, "swiglu_backward"};

  // --- transformer
  // ---------------------------------------------------------------------------------------------

  /// y[t] = weight[tokens[t]]; zero for padding (-1). tokens int32 [tokens], weight [vocabulary, hidden].
  Kernel<void(const Tensor& tokens, const Tensor& weight, const Tensor& y)> embedding{table_, "embedding"};
  /// dweight has the type of dy, or its sum_type.
  Kernel<void(const Tensor& tokens, const Tensor& dy, const Tensor& dweight, Write write)> embedding_backward{
      table_, "embedding_backward"};
  /// y = weight * x / rms(x) over the last dim: x [rows, width], weight [width], inverse_rms sums [rows].
  Kernel<void(const Tensor& x, const Tensor& weight, double epsilon, const Tensor& y,
              const Tensor& inverse_rms)>
      rms_norm{table_, "rms_norm"};
  /// dweight, of the type of x or its sum_type, may be undefined when it is not needed.
  Kernel<void(const Tensor& x, const Tensor& weight, const Tensor& inverse_rms, const Tensor& dy,
              const Tensor& dx, const Tensor& dweight, Write write_dweight)>
      rms_norm_backward{table_, "rms_norm_backward"};
  /// Grouped-query attention over a range of keys for each query, with memory linear in the sequence. A query
  /// that sees no key gets zeros, and -infinity as its log_sum_exp. Shapes:
  ///   query [sequences, queries, heads * head_width], key [sequences, keys, kv_heads * head_width],
  ///   value [sequences, keys, kv_heads * value_width], out [sequences, queries, heads * value_width],
  ///   log_sum_exp sums [sequences, heads, queries]
  Kernel<void(const Tensor& query, const Tensor& key, const Tensor& value, const KeyRanges& ranges,
              std::int64_t head_width, double scale, const Tensor& out, const Tensor& log_sum_exp)>
      attention{table_, "attention"};
  /// dout is like out, dquery like query, dkey like key, dvalue like value. A query that sees no key and a
  /// key that no query sees have gradients of zero.
  Kernel<void(const Tensor& query, const Tensor& key, const Tensor& value, const KeyRanges& ranges,
              std::int64_t head_width, double scale, const Tensor& out, const Tensor& log_sum_exp,
              const Tensor& dout, const Tensor& dquery, const Tensor& dkey, const Tensor& dvalue)>
      attention_backward{table_, "attention_backward"};
  /// The first pass over a chunk of logits, float32 or float64. The chunk has the whole vocabulary, or the
  /// ids from first_id to first_id + columns - 1. Shapes: targets int32 [rows], -1 for a row that is not
  /// counted; statistics float64 [rows, 3]. The statistics of a row are the largest logit, the sum of
  /// exp(logit - largest), and the target's logit. The target's logit is 0 where it does not lie among the
  /// columns.
  Kernel<void(const Tensor& logits, const Tensor& targets, std::int64_t first_id, const Tensor& statistics)>
      cross_entropy_statistics{table_, "cross_entropy_statistics"};
  /// Joins the statistics [parts, rows, 3] of all parts that the vocabulary is cut into. log_sum_exp float64
  /// [rows] is 0 where there is no target. Two sums over the rows with a target are added to sums float64
  /// [2]: the losses log_sum_exp - logit[target], and log_sum_exp^2. A target that is not among the ids of
  /// `vocabulary` gives NaN.
  Kernel<void(const Tensor& statistics, const Tensor& targets, std::int64_t vocabulary,
              const Tensor& log_sum_exp, const Tensor& sums)>
      cross_entropy_losses{table_, "cross_entropy_losses"};
  /// Replaces logits by the gradient of loss_scale * sum(log_sum_exp - logit[target]) + z_scale *
  /// sum(log_sum_exp^2). Rows without a target become zero. log_sum_exp float64 [rows] is over the whole
  /// vocabulary.
  Kernel<void(const Tensor& logits, const Tensor& targets, std::int64_t first_id, const Tensor& log_sum_exp,
              double loss_scale, double z_scale)>
      cross_entropy_gradient{table_, "cross_entropy_gradient"};

  // --- mixture of experts
  // --------------------------------------------------------------------------------------

  /// Computes scores, the top_k experts (ties: the lower index) and their weights, by the rule. The input
  /// `logits` is sums [tokens, experts], float32 or float64. The input `tokens` is int32 [tokens], -1 for
  /// padding, which is routed nowhere and counted nowhere. A logit of -infinity bars an expert for its token,
  /// whatever its selection bias. Its p is exactly 0, and so is its gradient. Where fewer than top_k experts
  /// are left, the last slots are -1, but never the first one. Statistics are kept by sequence;
  /// result.first_token and length say which token belongs to which.
  Kernel<void(const Tensor& logits, const Tensor& tokens, const RouteRule& rule, const RouteResult& result)>
      route{table_, "route"};
  /// dlogits from the gradients of weights, probability_sums and z_sum (float64 [1]). A softmax needs no
  /// logits.
  Kernel<void(const RouteResult& result, const RouteRule& rule, const Tensor& logits, const Tensor& dweights,
              const Tensor& dprobability_sums, const Tensor& dz_sum, const Tensor& dlogits)>
      route_backward{table_, "route_backward"};
  /// sums[d] = the sum over the tokens of document d of softmax(logits), in their order. Shapes: logits sums
  /// [tokens, experts], sums float64 [documents, experts], documents int32 [documents, 3]. A row of documents
  /// holds the first token, the one after the last, and a number that mask_outside_pools reads.
  Kernel<void(const Tensor& logits, const Tensor& documents, const Tensor& sums)> sum_over_documents{
      table_, "sum_over_documents"};
  /// In each document, the experts with the largest sums (ties: the lower index) keep their logits. The third
  /// number of the document's row says how many (all, if it is larger). The logits of all others become
  /// -infinity for all of the document's tokens. Sums are compared by the first half of the digits that
  /// logits have, since on another layout the last digits of equal sums differ. Tokens outside documents keep
  /// their logits.
  Kernel<void(const Tensor& documents, const Tensor& sums, const Tensor& logits)> mask_outside_pools{
      table_, "mask_outside_pools"};
  /// Sorts the assignments by expert, stable in the token order (counting sort). experts int32 [tokens,
  /// top_k].
  Kernel<RowOrder(const Tensor& experts, std::int64_t expert_count)> sort_by_expert{table_, "sort_by_expert"};
  /// rows[r] = x[token_of_row[r]]: x [tokens, hidden], rows [rows, hidden]
  Kernel<void(const Tensor& x, const RowOrder& order, const Tensor& rows)> permute_rows{table_,
                                                                                        "permute_rows"};
  /// dx[t] = sum over k of drows[row_of_slot[t, k]]
  Kernel<void(const Tensor& drows, const RowOrder& order, const Tensor& dx)> permute_rows_backward{
      table_, "permute_rows_backward"};
  /// y[t] = sum over k of weights[t, k] rows[row_of_slot[t, k]]; weights and dweights are sums.
  Kernel<void(const Tensor& rows, const Tensor& weights, const RowOrder& order, const Tensor& y)>
      combine_rows{table_, "combine_rows"};
  /// drows[r] = weights[slot] dy[t]; dweights[t, k] = rows[row] . dy[t]
  Kernel<void(const Tensor& rows, const Tensor& weights, const RowOrder& order, const Tensor& dy,
              const Tensor& drows, const Tensor& dweights)>
      combine_rows_backward{table_, "combine_rows_backward"};

  // --- optimizer
  // -----------------------------------------------------------------------------------------------

  /// Decoupled weight decay (Loshchilov and Hutter, arXiv 1711.05101) on these pieces of flat buffers,
  /// float32 or float64, in place. Pieces' first indexes gradient and value, first_state the moments.
  Kernel<void(const AdamWStep& step, const Pieces& pieces, const Tensor& gradient, const Tensor& value,
              const Tensor& moment1, const Tensor& moment2)>
      adamw{table_, "adamw"};

 private:
  void* found(const std::type_info& type) const {
    const auto at = families_.find(type);
    check(at != families_.end(), "the family of kernels ", type.name(),
          " was asked for, but no table has it; join it in framework/kernels/families.cpp");
    return at->second.get();
  }
};

/// The kernels of the device that the tensor lives on.
const Kernels& kernels_of(const Tensor& tensor);

}  // namespace conclave
