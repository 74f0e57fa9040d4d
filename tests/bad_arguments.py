"""Bad config files and command lines, and what is said of each."""

from __future__ import annotations

import os
from pathlib import Path

from bad_input import (
    GOOD,
    TEST,
    TRAIN,
    Case,
    arguments,
    both,
    config,
    file,
    link,
    nothing,
)

NO_TAG = (
    "is not allowed; a config file holds only plain values. Write a class or function by its name, "
    "such as torch.optim.SGD."
)

# Nine lists of nine times the one before: 387 million values.
BOMB = "model_kwargs:\n  a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"  a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9)
)

CONFIG_FILES = {
    "a list": config(
        "- epochs\n", "run.yaml, line 1: a config file holds `name: value` lines, not a list."
    ),
    "a single value": config(
        "epochs\n",
        "run.yaml, line 1: a config file holds `name: value` lines, not a single value.",
    ),
    "an object of Python": config(
        "epochs: 1\nseed: !!python/object:os.system {}\n",
        f"run.yaml, line 2: the tag !!python/object:os.system {NO_TAG}",
    ),
    "a call of Python": config(
        "model_kwargs:\n  x: !!python/object/apply:os.mkdir [ran]\n",
        f"run.yaml, line 2: the tag !!python/object/apply:os.mkdir {NO_TAG}",
    ),
    "no YAML": config(
        "epochs: [1\n",
        "run.yaml, line 2: not valid YAML: expected ',' or ']', but got '<stream end>'.",
    ),
    "no such character": config(
        'model_kwargs: {x: "\\U00110000"}\n',
        "run.yaml: not valid YAML: chr() arg not in range(0x110000).",
    ),
    "no UTF-8": config(b"seed: 1\nx: \xff\n", "run.yaml, line 2: this is not UTF-8 text."),
    "a NUL": config(
        "seed: \0\n", r"run.yaml, line 1: the character '\x00' is not allowed in YAML."
    ),
    "a value that names itself": config(
        "model_kwargs: &a {b: *a}\n", "run.yaml, line 1: this value contains itself."
    ),
    "a few lines that stand for millions of values": config(
        BOMB,
        "run.yaml, line 2: a config file cannot have more than 100000 values, counting each "
        "alias.",
    ),
    "lists in lists": config(
        f"model_kwargs: {{x: {'[' * 60}{']' * 60}}}\n",
        "run.yaml, line 1: the YAML is nested too deeply.",
    ),
    "lists in lists by the thousand": config(
        f"model_kwargs: {{x: {'[' * 5000}\n", "run.yaml: the YAML is nested too deeply."
    ),
    "lists in lists by names": config(
        "model_kwargs:\n  a0: &a0 [x]\n"
        + "".join(f"  a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 60)),
        "run.yaml, line 2: the YAML is nested too deeply.",
    ),
    "half a surrogate pair": config(
        'model_kwargs: {x: "\\ud83d"}\n',
        "run.yaml, line 1: model_kwargs must be text that UTF-8 can hold but has half a character.",
    ),
    "half a surrogate pair in a name": config(
        '"\\ud83d": 1\n',
        "run.yaml: a name has half a character in it, which UTF-8 cannot hold.",
    ),
    "too large": config(
        "# " + "x" * 2**20, "run.yaml: a config file cannot be larger than 1 MB."
    ),
    "no such file": Case(
        nothing, [*TEST, "x.txt", "--config", "run.yaml"],
        ["run.yaml: the config file cannot be read: No such file or directory."],
    ),
    "a directory": Case(
        lambda: Path("run.yaml").mkdir(), [*TEST, "x.txt", "--config", "run.yaml"],
        ["run.yaml: the config file cannot be read: Is a directory."],
    ),
    "a link to itself": Case(
        link("run.yaml", "run.yaml"), [*TEST, "x.txt", "--config", "run.yaml"],
        ["run.yaml: the config file cannot be read: Too many levels of symbolic links."],
    ),
    "a device": Case(
        nothing, [*TEST, "x.txt", "--config", "/dev/zero"],
        ["/dev/zero: a config file cannot be larger than 1 MB."],
    ),
    "a NUL in the name of a directory": config(
        'output_dir: "a\\0b"\n', "output_dir cannot have a NUL character in it."
    ),
    "a NUL in the name of a model": config(
        'tokenizer_name: "a\\0b"\n', "tokenizer_name cannot have a NUL character in it."
    ),
}  # fmt: skip

ARGUMENTS = {
    "a wrong type": arguments(
        "--epochs many", "epochs must be an integer but got 'many' (text)."
    ),
    "a number for an integer": arguments(
        "--epochs 1.5", "epochs must be an integer but got 1.5 (a number)."
    ),
    "more than there can be": arguments(
        "--epochs 1" + "0" * 30, f"epochs must be at most 2147483647 but got 1{'0' * 30}."
    ),
    "less than any number": arguments(
        "--epochs -1" + "0" * 400, f"epochs must be at least 1 but got -1{'0' * 400}."
    ),
    "an integer that is no number": arguments(
        "--delta 1" + "0" * 400,
        f"delta must be a number but got 1{'0' * 76}... (an integer).",
    ),
    "a seed that is too large": arguments(
        "--seed 4294967296", "seed must be from 0 to 4294967295 but got 4294967296."
    ),
    "min_epochs above epochs": arguments(
        "--epochs 2 --min_epochs 3", "min_epochs cannot be larger than epochs (2) but got 3."
    ),
    "no validation": Case(
        file("x.txt", GOOD), ["--train_file", "x.txt"],
        ["validation_file must be given when train_file is."],
    ),
    "probes of nothing that is learned": Case(
        file("x.txt", GOOD), [*TEST, "x.txt", "--probe_file", "x.txt"],
        ["probe_file needs a train_file: probes are measured while a model learns. To "
         "only test a model, give test_file."],
    ),
    "probes that are not there, and some that are there twice": Case(
        file("x.txt", GOOD), [*TRAIN, "--probe_file", "x.txt", "y.txt", "x.txt"],
        ["there is no file y.txt.",
         "each data file must be given once but x.txt is given 2 times."],
    ),
    "metadata of probes for other lines": Case(
        both(file("x.txt", GOOD), file("y.txt", GOOD), file("y_metadata.json", "{}\n")),
        [*TRAIN, "--probe_file", "y.txt"],
        ["metadata must have one line for each line of the data, but y_metadata.json has 1 and "
         "y.txt has 2."],
    ),
    "metadata of probes with a column of theirs": Case(
        both(file("x.txt", GOOD), file("y.txt", GOOD),
             file("y_metadata.json", '{"step": 1}\n{"step": 2}\n')),
        [*TRAIN, "--probe_file", "y.txt"],
        ["y_metadata.json: metadata must not have the key 'step', which is the name of a column of "
         "the results. Rename it."],
    ),
    "a preprocessing function of probes with an argument that it does not take": Case(
        file("x.txt", GOOD),
        [*TRAIN, "--probe_file", "x.txt",
         "--data_preprocessing_fn.probe", "data_preprocessing.mask_random_tokens",
         "--data_preprocessing_fn_kwargs.probe.mask_pro", "0.5"],
        ["data_preprocessing_fn_kwargs.probe.mask_pro is not an argument of mask_random_tokens, "
         "which "
         "takes mask_prop, replacement_props. Did you mean "
         "data_preprocessing_fn_kwargs.probe.mask_prop?"],
    ),
    "a number to select by that there is not": arguments(
        "--select_by accuracy", "select_by must be loss, pair_accuracy or pair_difference but got "
        "'accuracy'. Did you mean pair_accuracy?"
    ),
    "nothing to do": Case(
        nothing, [],
        ["train_file and validation_file, or test_file, or all three must be given."],
    ),
    "an unknown name": arguments(
        "--epoch 3", "--epoch is not an argument. Did you mean --epochs?"
    ),
    "no UTF-8": arguments(
        ["--output_dir", os.fsdecode(b"na\xefve")],
        r"word 6 of the command must be UTF-8 but is 'na\udcefve'.",
    ),
    "names by the thousand": arguments(
        ["--model_kwargs." + "a." * 5000 + "a", "1"],
        f"{('model_kwargs.' + 'a.' * 50)[:40]}... has more than 50 names in a row.",
    ),
    "JSON nested by the thousand": arguments(
        ["--model_kwargs", "json:" + "[" * 5000],
        "model_kwargs: what follows json: is nested too deeply.",
    ),
    "JSON nested by the dozen": arguments(
        ["--model_kwargs.x", "json:" + "[" * 60 + "]" * 60],
        "model_kwargs.x: what follows json: is nested too deeply.",
    ),
    "JSON with an integer of 5,000 digits": arguments(
        ["--model_kwargs.x", "json:" + "7" * 5000],
        "model_kwargs.x: what follows json: cannot be read: Exceeds the limit (4300 digits) for "
        "integer string conversion: value has 5000 digits; use sys.set_int_max_str_digits() to "
        "increase the limit.",
    ),
    "half a surrogate pair in JSON": arguments(
        ["--model_kwargs.x", 'json:"\\ud83d"'],
        "model_kwargs must be text that UTF-8 can hold but has half a character.",
    ),
    "a preview of too many": arguments(
        "--preview 1" + "0" * 5000,
        f"preview must be a number of examples, at least 1, but got 1{'0' * 79}.",
    ),
    "a file for the output directory": Case(
        both(file("x.txt", GOOD), file("out", "")), [*TEST, "x.txt", "--output_dir", "out/a/b"],
        ["output_dir must be a directory but out is a file."],
    ),
    "an output directory that leads nowhere": Case(
        both(file("x.txt", GOOD), link("out", "out")), [*TEST, "x.txt", "--output_dir", "out"],
        ["output_dir must be a directory but out is a link that leads nowhere."],
    ),
    "an output directory with a name too long": arguments(
        f"--output_dir {'é' * 200}",
        "output_dir must not have a name longer than 255 bytes in it.",
    ),
    "an output directory of another run": Case(
        both(
            file("x.txt", GOOD), lambda: Path("out").mkdir(), file("out/metrics.csv.gz", "a\n")
        ),
        ["--train_file", "x.txt", "--validation_file", "x.txt", "--output_dir", "out"],
        ["output_dir must not have results of another run, but out has metrics.csv.gz. Give "
         "another --output_dir."],
    ),
    "a prefix too long": arguments(
        f"--test_output_file_prefix {'x' * 300}",
        "test_output_file_prefix is too long for the name of a file (320 characters). Give a short "
        "--test_output_file_prefix.",
    ),
}  # fmt: skip
