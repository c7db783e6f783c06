// A student of what the demo's model says of raw text, which demo/student.py writes. See README.md.
(import '../training_configs/small/student.jsonnet') + {
  num_epochs:: 3,

  data_loader+: { batch_sampler+: { batch_size: 8 } },
  trainer+: { checkpointer+: { keep_most_recent_by_count: 1 }, callbacks: [] },
  include_in_archive: [],
}
