// Products: the rate of matrix products y = x W^T through our kernels, in a type and in the shapes of a
// recipe's layers. All of training is held against the best of these rates.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "framework/tensor/tensor.h"
#include "launch/train/recipe.h"

namespace conclave {

struct ProductShape {
  std::string use;
  std::int64_t m, n, k;
};

/// Returns one large square for the machine's own sake, and the products of the recipe's layers in a
/// micro-batch. These are an attention projection, a chunk of the LM head, and the rows of one expert under
/// even routing.
std::vector<ProductShape> product_shapes(const Recipe& recipe);

/// BestProducts keeps the best rate of each shape so far, in floating-point operations per second.
struct BestProducts {
  std::vector<ProductShape> shapes;
  std::vector<double> rates;
  void note(const std::vector<ProductShape>& shapes, const std::vector<double>& rates);
  double best() const;  // 0 before the first
};

class Products {
 public:
  Products(const std::vector<ProductShape>& shapes, DType dtype, Device& device);
  ~Products();
  const std::vector<ProductShape>& shapes() const { return shapes_; }
  /// Returns the best rate of each shape over at least one call and so many seconds each.
  std::vector<double> measure(double seconds) const;

 private:
  struct Operands;
  std::vector<ProductShape> shapes_;
  std::vector<Operands> operands_;  // [shapes]
};

}  // namespace conclave
