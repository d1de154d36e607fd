// Kernels: every computation that a device must offer, with shapes; the compiler says what a new backend
// still lacks. Kernels only compute: no differentiation, no allocation of results, no communication. Ops
// (autograd/) call them. Floating-point tensors are float32, float64 or bfloat16, all of one type within a
// call unless said otherwise. "Sums" are tensors of sum_type: float32 where the others are bfloat16, else the
// same type. Whatever is stored as bfloat16 is computed with in float32 and rounded once, when it is written.
// Names of sizes: tokens = sequences x length, hidden, heads, head_width, experts, top_k, vocabulary, rows
// (tokens sorted by expert).
#pragma once

#include "framework/kernels/pieces.h"

namespace conclave {

enum class Transpose { no, yes };
enum class Write { overwrite, accumulate };
enum class Rotation { forward, inverse };

/// Rows offsets[e] .. offsets[e+1]-1 belong to expert e: int64 [experts + 1], and where the host has learnt
/// the same numbers already, they come along, so that nobody waits for them again.
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

/// How rows of experts are laid out.
struct RowOrder {
  RowOffsets offsets;
  Tensor row_of_slot;   // int32 [tokens, top_k]; the row of this assignment, -1 when it goes nowhere
  Tensor token_of_row;  // int32 [rows]
  Tensor slot_of_row;   // int32 [rows]; token * top_k + k
};

/// How router logits s become probabilities p, weights w and a choice of experts.
struct RouteRule {
  enum class Score { softmax, sigmoid };
  /// The score q that experts are weighed and chosen by: softmax(s) or sigmoid(s). p is q made to sum to 1
  /// over all experts, which for the sigmoid is softmax(log sigmoid(s)).
  Score score = Score::softmax;
  bool renormalise = true;  // the chosen q are made to sum to 1
  double scale = 1;         // then multiplied by this
  /// Only experts of the best chosen_groups of `groups` consecutive groups may be chosen. A group is as good
  /// as its best expert (softmax: DeepSeek-V2, arXiv 2405.04434) or its best two (sigmoid: DeepSeek-V3,
  /// arXiv 2412.19437).
  std::int64_t groups = 1, chosen_groups = 1;
  /// float64 [experts], added to q for the choice alone (Wang et al., arXiv 2408.15664); undefined: none.
  Tensor selection_bias;
};

/// What a router decides and what it keeps for its backward.
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

class Kernels {
 public:
  virtual ~Kernels() = default;

  // --- matrix products
  // -----------------------------------------------------------------------------------------

  /// c [m, n] = op(a) op(b), or += with Write::accumulate; op(a) is [m, k], op(b) is [k, n]. c has the type
  /// of a and b, or their sum_type.
  virtual void gemm(const Tensor& a, Transpose transpose_a, const Tensor& b, Transpose transpose_b,
                    const Tensor& c, Write write) const = 0;
  /// y[r] = weight[e(r)] x[r]: x [rows, in], weight [experts, out, in], y [rows, out].
  virtual void grouped_linear(const Tensor& x, const Tensor& weight, const RowOffsets& offsets,
                              const Tensor& y) const = 0;
  /// dx[r] = weight[e(r)]^T dy[r]
  virtual void grouped_linear_dx(const Tensor& dy, const Tensor& weight, const RowOffsets& offsets,
                                 const Tensor& dx, Write write) const = 0;
  /// dweight[e] = sum over rows of e of dy[r] x[r]^T; zero for an expert without rows. dweight has the type
  /// of dy and x, or their sum_type.
  virtual void grouped_linear_dweight(const Tensor& dy, const Tensor& x, const RowOffsets& offsets,
                                      const Tensor& dweight, Write write) const = 0;

  // --- elementwise and reductions
  // ------------------------------------------------------------------------------

  /// y = x, rounded to the type of y; both of any floating-point type.
  virtual void convert(const Tensor& x, const Tensor& y) const = 0;
  /// y += factor * x; y has the type of x, or its sum_type. Every device takes float64 here: losses.
  virtual void add_scaled(const Tensor& x, double factor, const Tensor& y) const = 0;
  /// sum = a + b
  virtual void add(const Tensor& a, const Tensor& b, const Tensor& sum) const = 0;
  /// The sum of squares of x in a fixed order; sum float64 [1].
  virtual void sum_of_squares(const Tensor& x, const Tensor& sum, Write write) const = 0;
  /// The sum of squares of these pieces of x, each times its factor; those of factor 0 are not read. x
  /// float32 or float64, sum float64 [1].
  virtual void sum_of_squares(const Tensor& x, const Pieces& pieces, const Tensor& sum) const = 0;
  /// The sum of factors * x in a fixed order: x and factors float64 of one shape, sum float64 [1].
  virtual void weighted_sum(const Tensor& x, const Tensor& factors, const Tensor& sum) const = 0;
  /// y = factor * x with a factor that only the device knows: x and y float64 of one shape, factor float64
  /// [1].
  virtual void multiply(const Tensor& x, const Tensor& factor, const Tensor& y) const = 0;
  /// y = silu(gate) * up, all [rows, width]
  virtual void swiglu(const Tensor& gate, const Tensor& up, const Tensor& y) const = 0;
  virtual void swiglu_backward(const Tensor& gate, const Tensor& up, const Tensor& dy, const Tensor& dgate,
                               const Tensor& dup) const = 0;

  // --- transformer
  // ---------------------------------------------------------------------------------------------

  /// y[t] = weight[tokens[t]]; zero for padding (-1). tokens int32 [tokens], weight [vocabulary, hidden].
  virtual void embedding(const Tensor& tokens, const Tensor& weight, const Tensor& y) const = 0;
  /// dweight has the type of dy, or its sum_type.
  virtual void embedding_backward(const Tensor& tokens, const Tensor& dy, const Tensor& dweight,
                                  Write write) const = 0;
  /// y = weight * x / rms(x) over the last dim: x [rows, width], weight [width], inverse_rms sums
  /// [rows].
  virtual void rms_norm(const Tensor& x, const Tensor& weight, double epsilon, const Tensor& y,
                        const Tensor& inverse_rms) const = 0;
  /// dweight, of the type of x or its sum_type, may be undefined when nobody needs it.
  virtual void rms_norm_backward(const Tensor& x, const Tensor& weight, const Tensor& inverse_rms,
                                 const Tensor& dy, const Tensor& dx, const Tensor& dweight,
                                 Write write_dweight) const = 0;
  /// Rotates the two halves of the first rotary_width elements of each head by position *
  /// theta^(-2i/rotary_width) and hands the others on: x, y [tokens, heads, head_width], positions int32
  /// [tokens], rotary_width even and at most head_width. The inverse rotation is the transpose.
  virtual void rope(const Tensor& x, const Tensor& positions, double theta, std::int64_t rotary_width,
                    Rotation rotation, const Tensor& y) const = 0;
  /// Causal attention inside documents with grouped key-value heads and memory linear in the sequence.
  /// query, out [sequences, length, heads * head_width]; key, value [sequences, length, kv_heads *
  /// head_width]; document_start int32 [sequences, length]: the first column that a token may look at;
  /// log_sum_exp sums [sequences, heads, length].
  virtual void attention(const Tensor& query, const Tensor& key, const Tensor& value,
                         const Tensor& document_start, std::int64_t head_width, double scale,
                         const Tensor& out, const Tensor& log_sum_exp) const = 0;
  virtual void attention_backward(const Tensor& query, const Tensor& key, const Tensor& value,
                                  const Tensor& document_start, std::int64_t head_width, double scale,
                                  const Tensor& out, const Tensor& log_sum_exp, const Tensor& dout,
                                  const Tensor& dquery, const Tensor& dkey, const Tensor& dvalue) const = 0;
  /// The first pass over a chunk of logits, float32 or float64, of all of the vocabulary or of the ids from
  /// first_id to first_id + columns - 1. statistics float64 [rows, 3]: the largest logit, the sum of
  /// exp(logit - largest), and the logit of the target where it lies among the columns, else 0. targets int32
  /// [rows]; -1: not counted.
  virtual void cross_entropy_statistics(const Tensor& logits, const Tensor& targets, std::int64_t first_id,
                                        const Tensor& statistics) const = 0;
  /// Joins the statistics of all parts that the vocabulary is cut into, [parts, rows, 3], into log_sum_exp
  /// float64 [rows], 0 where there is no target, and adds to sums float64 [2] what the rows with a target
  /// have lost, log_sum_exp - logit[target], and their log_sum_exp^2. A target that is not among the ids of
  /// `vocabulary` gives NaN.
  virtual void cross_entropy_losses(const Tensor& statistics, const Tensor& targets, std::int64_t vocabulary,
                                    const Tensor& log_sum_exp, const Tensor& sums) const = 0;
  /// Replaces logits by the gradient of loss_scale * sum(log_sum_exp - logit[target]) + z_scale *
  /// sum(log_sum_exp^2); zero rows where there is no target. log_sum_exp float64 [rows], over the whole
  /// vocabulary.
  virtual void cross_entropy_gradient(const Tensor& logits, const Tensor& targets, std::int64_t first_id,
                                      const Tensor& log_sum_exp, double loss_scale, double z_scale) const = 0;

  // --- mixture of experts
  // --------------------------------------------------------------------------------------

  /// Scores, the top_k experts (ties: the lower index) and their weights, by the rule. logits sums [tokens,
  /// experts], float32 or float64; tokens int32 [tokens], -1 for padding: routed nowhere, counted nowhere. A
  /// logit of -infinity takes an expert out of the running for its token, whatever its selection bias: p is
  /// exactly 0, and so is the gradient. Statistics are kept by sequence: result.first_token and length say
  /// which token belongs to which.
  virtual void route(const Tensor& logits, const Tensor& tokens, const RouteRule& rule,
                     const RouteResult& result) const = 0;
  /// dlogits from the gradients of weights, probability_sums and z_sum (float64 [1]). A softmax needs no
  /// logits.
  virtual void route_backward(const RouteResult& result, const RouteRule& rule, const Tensor& logits,
                              const Tensor& dweights, const Tensor& dprobability_sums, const Tensor& dz_sum,
                              const Tensor& dlogits) const = 0;
  /// sums[d] = the sum over the tokens of document d of softmax(logits), in their order: logits sums [tokens,
  /// experts]; documents int32 [documents, 3]: the first token, the one after the last, and what
  /// mask_outside_pools reads; sums float64 [documents, experts].
  virtual void sum_over_documents(const Tensor& logits, const Tensor& documents,
                                  const Tensor& sums) const = 0;
  /// Of each document as many experts as the third number of its row says keep their logits (all, if it is
  /// larger), those with the largest sums (ties: the lower index); the logits of all others become -infinity
  /// for all of its tokens. Sums are compared by the first half of the digits that logits have: on another
  /// layout the last digits of equal ones differ. Tokens of no document keep theirs.
  virtual void mask_outside_pools(const Tensor& documents, const Tensor& sums,
                                  const Tensor& logits) const = 0;
  /// Sorts the assignments by expert, stable in the token order (counting sort). experts int32 [tokens,
  /// top_k].
  virtual RowOrder sort_by_expert(const Tensor& experts, std::int64_t expert_count) const = 0;
  /// rows[r] = x[token_of_row[r]]: x [tokens, hidden], rows [rows, hidden]
  virtual void permute_rows(const Tensor& x, const RowOrder& order, const Tensor& rows) const = 0;
  /// dx[t] = sum over k of drows[row_of_slot[t, k]]
  virtual void permute_rows_backward(const Tensor& drows, const RowOrder& order, const Tensor& dx) const = 0;
  /// y[t] = sum over k of weights[t, k] rows[row_of_slot[t, k]]; weights and dweights are sums.
  virtual void combine_rows(const Tensor& rows, const Tensor& weights, const RowOrder& order,
                            const Tensor& y) const = 0;
  /// drows[r] = weights[slot] dy[t]; dweights[t, k] = rows[row] . dy[t]
  virtual void combine_rows_backward(const Tensor& rows, const Tensor& weights, const RowOrder& order,
                                     const Tensor& dy, const Tensor& drows, const Tensor& dweights) const = 0;

  // --- optimizer
  // -----------------------------------------------------------------------------------------------

  struct AdamWStep {
    double learning_rate, beta1, beta2, epsilon;
    double correction1, correction2;  // 1 - beta^step
    double gradient_scale;            // clipping
  };
  /// Decoupled weight decay (Loshchilov and Hutter, arXiv 1711.05101) on these pieces of flat buffers,
  /// float32 or float64, in place: gradient and value by Pieces' first, moments by first_state.
  virtual void adamw(const AdamWStep& step, const Pieces& pieces, const Tensor& gradient, const Tensor& value,
                     const Tensor& moment1, const Tensor& moment2) const = 0;
};

/// The kernels of the device that the tensor lives on.
const Kernels& kernels_of(const Tensor& tensor);

}  // namespace conclave
