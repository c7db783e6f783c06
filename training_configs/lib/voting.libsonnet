// Learn the teachers' tags, of words on which all of them agree.
{
  word_weights:: 'vote',
  model+: { soft_label_loss: 'squared_error', hard_label_weight: 1.0 },
}
