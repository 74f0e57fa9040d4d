"""What processes that make a run together tell each other of its end."""

from __future__ import annotations

import pytest
from torch.distributed import HashStore

from finetune_lm.ends import Ends
from finetune_lm.errors import OtherRankError, UserError


@pytest.fixture
def three(monkeypatch):
    monkeypatch.setattr("finetune_lm.ends._SECONDS", 0.1)
    store = HashStore()
    return [Ends(store, rank, 3) for rank in range(3)]


@pytest.mark.parametrize(
    ("error", "said", "status"),
    [
        (UserError("it cannot be done."), "rank 2: it cannot be done.", 2),
        (ValueError("a mistake"), "rank 2: ValueError: a mistake", 1),
        (MemoryError(), "rank 2: MemoryError", 1),
    ],
)
def test_who_hears_of_an_end_from_another_names_the_one_that_has_ended(three, error, said, status):
    first, second, third = three
    third.tell(error)
    heard = second.why()
    second.tell(heard)
    # The first looks at the second before it looks at the third.
    for each in (heard, first.why()):
        assert isinstance(each, OtherRankError)
        assert (str(each), each.exit_status, each.is_said) == (said, status, True)
    first.tell(heard)
    assert second.is_told_by_first(heard)
    # Of a mistake in the program the first knows only that there is one.
    assert third.is_told_by_first(error) == isinstance(error, UserError)


def test_of_a_first_that_is_gone_somebody_tells_the_user(three):
    _, second, third = three
    gone = third.why()
    assert str(gone).startswith("rank 0: the process (")
    third.tell(gone)
    heard = second.why()
    assert (str(heard), heard.exit_status, heard.is_said) == (str(gone), 1, False)
    assert (second.is_told_by_first(heard), third.is_told_by_first(gone)) == (False, True)
