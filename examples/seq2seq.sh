#!/bin/sh
# The same for an encoder-decoder of the T5 kind. Its data files have sentinels such as <extra_id_0>
# for both nouns in "text", and each sentinel followed by its noun in "labels".
#
#     sh examples/seq2seq.sh [OUTPUT_DIR]
set -e
output_dir=${1:-outputs/examples/seq2seq-$(date +%Y%m%d-%H%M%S)}
data=$(dirname "$0")/../data/nonce_verb

finetune-lm \
  --model_name_or_path tiny-seq2seq \
  --train_file "$data/flomped_seq2seq_train.json.gz" \
  --validation_file "$data/flomped_seq2seq_validation.json.gz" \
  --test_file "$data/flomped_seq2seq_test.json.gz" \
  --epochs 10 \
  --per_device_train_batch_size 16 \
  --train_optimizer_kwargs.lr 1e-4 \
  --seed 1 \
  --output_dir "$output_dir"
