from __future__ import annotations

from finetune_lm.study.trial_log import TrialLog


def test_the_log_grows_by_what_each_trial_tries(tmp_path):
    path = tmp_path / "config.txt"
    log = TrialLog(path, "ModelArguments\n  x: 1\n\n")
    head = path.read_text()
    assert head == "ModelArguments\n  x: 1\n"
    log.begin(3, {"lr": 1.5e-05, "train_optimizer": "torch.optim.SGD"}, ", again")
    log.end("2.5 (2 epochs)")
    first, *lines = path.read_text().removeprefix(head).splitlines()
    assert first == ""
    assert lines[0].startswith("trial 3, 20")
    assert lines[0].endswith(", again")
    assert lines[1:] == [
        "  lr:              1.5e-05",
        "  train_optimizer: torch.optim.SGD",
        "  2.5 (2 epochs)",
    ]


def test_a_trial_may_try_nothing(tmp_path):
    log = TrialLog(tmp_path / "config.txt", "x")
    log.begin(0, {})
    assert (tmp_path / "config.txt").read_text().startswith("x\n\ntrial 0, ")
