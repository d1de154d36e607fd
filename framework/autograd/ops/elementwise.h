// Sums, SwiGLU and RMSNorm.
#pragma once

#include "framework/autograd/tape.h"

namespace conclave {

/// x rounded to a type; x itself where it has that type already.
Variable to_type(Tape& tape, const Variable& x, DType dtype);
/// a + b, of one shape: the residual connection.
Variable add(Tape& tape, const Variable& a, const Variable& b);

/// silu(gate) * up, of one shape (Shazeer, arXiv 2002.05202).
Variable swiglu(Tape& tape, const Variable& gate, const Variable& up);

/// weight * x / sqrt(mean(x^2) + epsilon) over the last dim (arXiv 1910.07467).
Variable rms_norm(Tape& tape,
                  const Variable& x,       // [rows, width], or any shape whose last dims make rows of width
                  const Variable& weight,  // [width]
                  double epsilon);         // -> the shape of x

/// The sum of float64 scalars, which stay on their device: the objective from its terms. Without terms it is
/// 0 on `device`.
Variable add_losses(Tape& tape, const std::vector<Variable>& losses, Device& device = cpu_device());

}  // namespace conclave
