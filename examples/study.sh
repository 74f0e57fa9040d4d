#!/bin/sh
# Search for a learning rate and a batch size with which a causal language model learns the verb
# "flomped" best. Then do the run of the best trial again in full, and test its model.
#
#     sh examples/study.sh [OUTPUT_DIR]
set -e
output_dir=${1:-outputs/examples/study-$(date +%Y%m%d-%H%M%S)}
data=$(dirname "$0")/../data/nonce_verb

finetune-lm \
  --model_name_or_path tiny-lm \
  --train_file "$data/flomped_active.txt.gz" \
  --validation_file "$data/flomped_passive.txt.gz" \
  --epochs 10 \
  --patience 2 \
  --seed 1 \
  --do_optimize \
  --params.lr.values 1e-5 1e-3 \
  --params.lr.suggest_kwargs.log \
  --params.per_device_train_batch_size.values 8 16 32 \
  --params.per_device_train_batch_size.type categorical \
  --optimize_kwargs.n_trials 12 \
  --keep_best_trial \
  --output_dir "$output_dir"

finetune-lm \
  --model_name_or_path "$output_dir/best_trial/model" \
  --test_file "$data/flomped_test.txt.gz" \
  --test_output_file_prefix best \
  --seed 1 \
  --output_dir "$output_dir/test"
