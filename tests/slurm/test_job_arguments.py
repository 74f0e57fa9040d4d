from __future__ import annotations

import shlex

import pytest

import setups
from finetune_lm.cli import main

FILES = setups.DATA
RUN = [
    *("--model_name_or_path", "tiny-lm", "--train_file", f"{FILES}/flomped_active.txt.gz"),
    *("--validation_file", f"{FILES}/flomped_passive.txt.gz"),
]
TEST = ["--model_name_or_path", "tiny-lm", "--test_file", f"{FILES}/flomped_test.txt.gz"]
STUDY = [*RUN, "--do_optimize", "--output_dir", "out", "--max_trials", "5"]


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def script(capsys):
    def get(options, words):
        capsys.readouterr()
        assert main(["sbatch", *options, "--", *words]) == 0, capsys.readouterr().err
        return capsys.readouterr()

    return get


@pytest.fixture
def mistakes(capsys):
    def get(options, words):
        capsys.readouterr()
        assert main(["sbatch", *options, "--", *words]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        return [
            line.removeprefix("finetune-lm: error: ") for line in captured.err.strip().splitlines()
        ]

    return get


def test_a_run(script, tmp_path):
    words = [*RUN, "--output_dir", "outputs/mine"]
    printed = script(["--time", "1:00:00"], words)
    assert printed.err == ""
    assert "#SBATCH --job-name=mine\n#SBATCH --time=1:00:00\n" in printed.out
    assert f"cd {tmp_path} " in printed.out
    assert "run=outputs/mine\n" in printed.out
    assert f"-m finetune_lm {shlex.join(words)}\n" in printed.out
    assert '-m finetune_lm --resume "$run"\n' in printed.out


def test_the_directory_may_be_named_in_a_config_file(script, tmp_path):
    (tmp_path / "mine.yaml").write_text("output_dir: outputs/other\n")
    assert "run=outputs/other\n" in script([], [*TEST, "--config", "mine.yaml"]).out


def test_a_run_for_each_task(script):
    words = [*RUN, "--seed", "{task}", "--output_dir", "outputs/mine/seed{task}"]
    printed = script(["--array", "1-3"], words).out
    assert "#SBATCH --job-name=seed\n" in printed
    assert 'run=outputs/mine/seed"$SLURM_ARRAY_TASK_ID"\n' in printed
    assert '--seed "$SLURM_ARRAY_TASK_ID" --output_dir' in printed


def test_a_study_goes_on_and_its_processes_have_no_number_of_trials(script):
    printed = script(["--array=1-4"], STUDY).out
    assert "resume" not in printed
    assert "--study_kwargs.load_if_exists True --optimize_kwargs.n_trials None\n" in printed
    given = [*STUDY, "--optimize_kwargs.n_trials", "3", "--study_kwargs.load_if_exists"]
    assert f"{shlex.join(given)}\n" in script([], given).out


def test_a_run_that_has_begun(script, mistakes, tmp_path):
    words = [*TEST, "--max_test_samples", "2", "--output_dir", "out"]
    assert main(words) == 0
    assert "run=out\n" in script([], words).out
    assert "run=out\n" in script([], [*words, "--save_tmp_test_files"]).out
    assert mistakes([], [*words, "--seed", "7", "--bos_policy", "none"]) == [
        "output_dir must not have another run, but out has one that the job would resume, "
        f"and {change}. Give another --output_dir."
        for change in (
            f"seed was {seed_of(tmp_path)} and is 7",
            "bos_policy was auto and is none",
        )
    ]
    resumed = script([], ["--resume", "out"]).out
    assert "-m finetune_lm --resume out\n" in resumed
    assert "run=" not in resumed
    (tmp_path / "out" / "config.yaml").write_text("x: [")
    assert "cannot be read" in mistakes([], words)[0]


def seed_of(directory):
    import yaml

    return yaml.safe_load((directory / "out" / "config.yaml").read_text())["seed"]


NEEDS_DIR = "output_dir must be given: a job that is started again continues from there."


@pytest.mark.parametrize(
    ("options", "words", "told"),
    [
        ([], RUN, [NEEDS_DIR]),
        ([], [*RUN, "--output_dir", "x/{now}"], ["output_dir must be the same whenever the job"]),
        ([], [*RUN, "--output_dir", "x/{task}"], ["{task} stands for the number of an array's"]),
        (["-a1-3"], [*RUN, "--output_dir", "x"], ["each task of an array must have an output_dir"]),
        (["-n4"], [*RUN, "--output_dir", "x"], ["--ntasks must be 1, since a run is one process"]),
        ([], STUDY[:-2], ["max_trials must be given for a study in jobs"]),
        ([], [*RUN, "--output_dir", "x", "--checkpoint_every", "0"], ["checkpoint_every must not"]),
        ([], [*STUDY, "--token", "hf_xyz"], ["a script must not show tokens and passwords."]),
        (
            [],
            [*STUDY, "--study_kwargs.storage", "postgresql://me:xyz@host/studies"],
            ["a script must not show tokens and passwords."],
        ),
        ([], ["--version"], ["after -- must come the arguments of a run or a study"]),
        ([], [*TEST, "--print_config"], ["after -- must come the arguments of a run or a study"]),
        ([], [*TEST, "--preview", "2"], ["after -- must come the arguments of a run or a study"]),
        ([], [*TEST, "--output_dir", "x", "--sed", "1"], ["sed is not an argument"]),
        (
            ["--array", "1,4"],
            [
                *TEST[:2],
                "--test_file",
                "{task}.txt",
                "--output_dir",
                "x{task}",
                "--seed",
                "{task}x",
            ],
            ["task 1: seed must be an integer but got '1x'", "task 4: seed must be an integer but"],
        ),
        (
            ["--array=1-4"],
            [*TEST[:2], "--test_file", "{task}.txt", "--output_dir", "x{task}"],
            ["task 1: test_file names a file that is not there."],
        ),
        (
            ["--array", "x", "--wrap", "y"],
            RUN,
            ["--wrap cannot be given", "--array must be the numbers of its tasks", NEEDS_DIR],
        ),
    ],
)
def test_mistakes_are_told_before_the_job_waits_in_a_queue(mistakes, options, words, told):
    found = mistakes(options, words)
    assert len(found) == len(told), found
    for line, expected in zip(found, told, strict=True):
        assert expected in line
    assert "xyz" not in "".join(found)


def test_without_anything_to_do(capsys):
    for words in (["--time", "1"], ["--time", "1", "--"], []):
        assert main(["sbatch", *words]) == 2
        assert "the arguments of the run must come after --" in capsys.readouterr().err


def test_a_gpu_that_is_not_used_is_warned_of(script):
    words = [*RUN, "--output_dir", "x"]
    for options in (["--gres", "gpu:1"], ["--gpus=1"], ["-G1"]):
        assert "--use_gpu is not given" in script(options, words).err
        assert script(options, [*words, "--use_gpu"]).err == ""
