// Table 4: without the max loss, that is with Eq. 3 in place of Eq. 13.
(import '../meta_en.jsonnet') + { model+: { max_loss_weight: 0.0 } }
