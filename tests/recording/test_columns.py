from __future__ import annotations

import pyarrow as pa
import pytest

from finetune_lm.arguments.references import numbered_names
from finetune_lm.errors import UserError
from finetune_lm.recording.columns import (
    MetadataColumns,
    all_loss_columns,
    table_columns,
)

ORDER = """
model_name task n_params dataset_name dataset_type epoch batch_number example_num item
original_text input_text input_label sequence_type word_num word token_num_in_word token token_id
token_start token_end token_is_start_of_word token_is_word is_target is_unknown surprisal
predicted_token predicted_token_id predicted_token_surprisal loss L lr seed m
"""


def columns_of(*values, key="k"):
    return MetadataColumns([[{key: value} for value in values]], ["m.json"])


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([1, 2], pa.int64(), [1, 2]),
        ([1, None], pa.int64(), [1, None]),
        ([1, 2.5], pa.float64(), [1.0, 2.5]),
        ([True, False], pa.bool_(), [True, False]),
        ([True, 1], pa.string(), ["true", "1"]),
        (["a", None], pa.string(), ["a", None]),
        (["a", 1], pa.string(), ["a", "1"]),
        ([[1, 2], {"x": "é"}], pa.string(), ["[1, 2]", '{"x": "é"}']),
        ([2**70, 1], pa.string(), [str(2**70), "1"]),
        ([None, None], pa.string(), [None, None]),
        (["a\0b"], pa.string(), ["a\\x00b"]),
    ],
)
def test_one_type_a_column(values, kind, expected):
    array = columns_of(*values).array("k", values)
    assert array.type == kind
    assert array.to_pylist() == expected


@pytest.mark.parametrize("key", ["surprisal", "loss", "epoch", "seed", "sequence_type", "MyLoss"])
def test_a_key_that_is_the_name_of_a_column(key):
    with pytest.raises(UserError, match=f"m.json: metadata must not have the key '{key}'"):
        MetadataColumns([[{key: 1}]], ["m.json"], others=["MyLoss"])


def test_item_is_no_metadata_column_of_its_own():
    metadata = MetadataColumns([[{"item": "a", "k": 1}]], ["m.json"])
    assert metadata.names == ["k"]
    assert metadata.array("item", ["a"]).to_pylist() == ["a"]


def test_several_data_sets_share_columns():
    metadata = MetadataColumns([[{"a": 1}], [{"b": "x", "a": "y"}]], ["1.json", "2.json"])
    assert metadata.names == ["a", "b"]
    assert metadata.array("a", [1]).to_pylist() == ["1"]


def test_items_of_one_data_set_and_numbers_of_another():
    metadata = MetadataColumns([[{"item": "a"}], [{}]], ["1.json", "2.json"])
    assert metadata.array("item", [0, 1]).to_pylist() == ["0", "1"]


def test_order_of_columns():
    columns = table_columns(losses=["loss", "L"], metadata=["m"], besides=["sequence_type"])
    assert columns == ORDER.split()
    assert "sequence_type" not in table_columns(losses=[], metadata=[])


class A: ...


class B: ...


def test_two_losses_of_one_class_are_told_apart():
    assert numbered_names([A, B]) == ["A", "B"]
    assert numbered_names([A, B, A]) == ["A_1", "B", "A_2"]
    assert all_loss_columns({"train": [A, B], "validation": [A]}) == ["loss", "A", "B"]
