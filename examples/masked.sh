#!/bin/sh
# The same for a masked language model. Its data files have [MASK] for both nouns in "text" and the
# whole sentence in "labels". The preprocessing function keeps the labels of the masks only, so that
# the loss is about the two nouns and nothing else.
#
#     sh examples/masked.sh [OUTPUT_DIR]
set -e
output_dir=${1:-outputs/examples/masked-$(date +%Y%m%d-%H%M%S)}
data=$(dirname "$0")/../data/nonce_verb

finetune-lm \
  --model_name_or_path tiny-mlm \
  --train_file "$data/flomped_mlm_train.json.gz" \
  --validation_file "$data/flomped_mlm_validation.json.gz" \
  --test_file "$data/flomped_mlm_test.json.gz" \
  --data_preprocessing_fn.train data_preprocessing.remove_non_mask_tokens_from_labels \
  --data_preprocessing_fn.validation data_preprocessing.remove_non_mask_tokens_from_labels \
  --data_preprocessing_fn.test data_preprocessing.remove_non_mask_tokens_from_labels \
  --epochs 10 \
  --per_device_train_batch_size 16 \
  --train_optimizer_kwargs.lr 1e-4 \
  --seed 1 \
  --output_dir "$output_dir"
