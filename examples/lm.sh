#!/bin/sh
# Teach a causal language model the verb "flomped" in active sentences. Validate on passives, and
# test the best model on every construction and on sentences with verbs that it knew before.
#
#     sh examples/lm.sh [OUTPUT_DIR]
set -e
output_dir=${1:-outputs/examples/lm-$(date +%Y%m%d-%H%M%S)}
data=$(dirname "$0")/../data/nonce_verb

finetune-lm \
  --model_name_or_path tiny-lm \
  --train_file "$data/flomped_active.txt.gz" \
  --validation_file "$data/flomped_passive.txt.gz" \
  --test_file "$data/flomped_test.txt.gz" "$data/fillers.txt.gz" \
  --epochs 20 \
  --per_device_train_batch_size 16 \
  --train_optimizer_kwargs.lr 5e-4 \
  --seed 1 \
  --output_dir "$output_dir"
