// The optimiser of the inner loop, and what its first step from a fresh state does to a parameter w whose
// gradient is g.
{
  // The paper, Adam: w - lr * g / (|g| + 1e-8). A step of the whole rate, however small the gradient.
  paper(lr):: { type: 'adam', lr: lr },
  // The published code, BertAdam: w - 3.16 lr * g / (|g| + 3.16e-5), without bias correction. Where the model
  // fits its support set already, |g| is below 3.16e-5, and it hardly moves. Each gradient is clipped to a norm
  // of 1, and weight decay takes 0.01 lr * w off matrices.
  published(lr):: { type: 'bert_adam', lr: lr },
  // The same first step as a setting of Adam, without clipping and weight decay.
  published_as_adam(lr):: { type: 'adam', lr: std.sqrt(10) * lr, eps: 1e-6 * std.sqrt(1000) },
}
