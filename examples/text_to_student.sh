#!/usr/bin/env bash
# From English labels and a folder of text in another language to a fast model of that language:
#   METANER_ENCODER=.encoders/e5-small METANER_DATA=data examples/text_to_student.sh TEXT OUTPUT
# TEXT is a folder or file of raw text, one sentence a line. Ended by whatever, it goes on where it was.
set -euo pipefail
text=$1 output=$2
teachers=()

# Three English models that differ in their seeds. They vote, so one's mistakes are outvoted by the others.
for seed in 13370 13371 13372; do
    run=$output/base/$seed
    if [ ! -f "$run/model.tar.gz" ]; then
        recover=$([ -d "$run" ] && echo --recover || true)
        METANER_SEED=$seed allennlp train training_configs/small/base_en.jsonnet -s "$run" \
            --include-package allennlp_metaner $recover
    fi
    teachers+=("$run/model.tar.gz")
done

# Their labels, a student of the tags on which they agree, and the student as a model of transformers.
allennlp metaner-student "${teachers[@]}" --text "$text" -s "$output/student" \
    --config training_configs/recommended.jsonnet --export
