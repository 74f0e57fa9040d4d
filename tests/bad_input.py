"""Every kind of bad input that is told before a model is loaded, and what is said of it.

`test_bad_input.py` goes through these tables.
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

GOOD = "The man has always broken the glass.\nThe women drank.\n"
SUFFIXES = ".txt.gz, .txt, .json.gz, .json, .jsonl.gz, .jsonl"
TEST = ["--test_file"]
TRAIN = ["--train_file", "x.txt", "--validation_file", "x.txt"]
PACKED = gzip.compress(GOOD.encode(), mtime=0)


class Case(NamedTuple):
    """One kind of bad input.

    Attributes:
        make: Makes the files, in the current directory.
        argv: The command line, with `BASE` before it.
        said: What is said, without "finetune-lm: error: " before each line.
    """

    make: Callable[[], Any]
    argv: list[str]
    said: list[str]


BASE = ["--model_name_or_path", "tiny-lm"]


def nothing() -> None:
    """Make no files."""


def file(name: str, content: str | bytes) -> Callable[[], None]:
    """Write a file, gzipped if its name says so."""

    def make() -> None:
        data = content.encode() if isinstance(content, str) else content
        Path(name).write_bytes(gzip.compress(data, mtime=0) if name.endswith(".gz") else data)

    return make


def raw(name: str, content: bytes) -> Callable[[], None]:
    """Write a file as it is, whatever its name."""

    def make() -> None:
        Path(name).write_bytes(content)

    return make


def both(*makers: Callable[[], None]) -> Callable[[], None]:
    def make() -> None:
        for each in makers:
            each()

    return make


def link(name: str, target: str) -> Callable[[], None]:
    return lambda: Path(name).symlink_to(target)


def bad_file(name: str, content: str | bytes, said: str) -> Case:
    return Case(file(name, content), [*TEST, name], [said])


def metadata(content: str | bytes, said: str) -> Case:
    """Metadata for a good file of two lines."""
    makers = both(file("x.txt.gz", GOOD), file("x_metadata.json.gz", content))
    return Case(makers, [*TEST, "x.txt.gz"], [said])


def config(content: str | bytes, *said: str) -> Case:
    return Case(file("run.yaml", content), [*TEST, "x.txt", "--config", "run.yaml"], list(said))


def arguments(argv: str | list[str], *said: str) -> Case:
    """A command line that is wrong by itself, with good data."""
    words = argv.split() if isinstance(argv, str) else argv
    return Case(file("x.txt.gz", GOOD), [*TEST, "x.txt.gz", *words], list(said))


DATA_FILES = {
    "no such file": Case(nothing, [*TEST, "x.txt.gz"], ["there is no file x.txt.gz."]),
    "another ending": Case(
        file("x.csv", GOOD), [*TEST, "x.csv"],
        [f"a data file must end in one of {SUFFIXES} but got x.csv."],
    ),
    "empty": bad_file("x.txt", "", "a data file must have at least one line but x.txt is empty."),
    "empty, gzipped": bad_file(
        "x.txt.gz", "", "a data file must have at least one line but x.txt.gz is empty."
    ),
    "empty, not gzipped, named .gz": Case(
        raw("x.json.gz", b""), [*TEST, "x.json.gz"],
        ["a data file must have at least one line but x.json.gz is empty."],
    ),
    "not gzipped, named .gz": Case(
        raw("x.txt.gz", GOOD.encode()), [*TEST, "x.txt.gz"],
        ["a file named .gz must be gzipped but x.txt.gz is not."],
    ),
    "cut off": Case(
        raw("x.txt.gz", gzip.compress(GOOD.encode() * 50, mtime=0)[:-20]), [*TEST, "x.txt.gz"],
        ["x.txt.gz is truncated or damaged: Compressed file ended before the end-of-stream marker "
         "was reached"],
    ),
    "cut off in the header": Case(
        raw("x.txt.gz", PACKED[:5]), [*TEST, "x.txt.gz"],
        ["x.txt.gz is truncated or damaged: Compressed file ended before the end-of-stream marker "
         "was reached"],
    ),
    "one byte changed": Case(
        raw("x.txt.gz", PACKED[:-8] + b"\0" * 8), [*TEST, "x.txt.gz"],
        ["x.txt.gz is truncated or damaged: CRC check failed 0x0 != 0x72130097"],
    ),
    "garbage behind the end": Case(
        raw("x.txt.gz", PACKED + b"garbage"), [*TEST, "x.txt.gz"],
        ["x.txt.gz is truncated or damaged: Not a gzipped file (b'ga')"],
    ),
    "a second part that is cut off": Case(
        raw("x.txt.gz", PACKED + PACKED[:30]),
        [*TEST, "x.txt.gz"],
        ["x.txt.gz is truncated or damaged: Compressed file ended before the end-of-stream marker "
         "was reached"],
    ),
    "a directory": Case(
        lambda: Path("x.txt.gz").mkdir(), [*TEST, "x.txt.gz"],
        ["x.txt.gz must be a file but is a directory."],
    ),
    "a link to itself": Case(
        link("x.txt", "x.txt"), [*TEST, "x.txt"],
        ["x.txt cannot be read: Too many levels of symbolic links."],
    ),
    "a link to nothing": Case(link("x.txt", "y"), [*TEST, "x.txt"], ["there is no file x.txt."]),
    "a pipe": Case(
        lambda: os.mkfifo("x.txt"), [*TEST, "x.txt"],
        ["x.txt must be a file but is a pipe or a device."],
    ),
    "a device": Case(
        link("x.txt.gz", "/dev/zero"), [*TEST, "x.txt.gz"],
        ["x.txt.gz must be a file but is a pipe or a device."],
    ),
    "a name too long": Case(
        nothing, [*TEST, "x" * 300 + ".txt"],
        ["x" * 300 + ".txt cannot be read: File name too long."],
    ),
    "a file for a directory": Case(
        file("x.txt", GOOD), [*TEST, "x.txt/y.txt"],
        ["x.txt/y.txt cannot be read: Not a directory."],
    ),
    "no UTF-8": bad_file(
        "x.txt", b"ok\nna\xefve\n",
        "x.txt, line 2: must be UTF-8 but is not (invalid continuation byte at byte 3).",
    ),
    "UTF-16": bad_file(
        "x.txt", "The man.\n".encode("utf-16"),
        "x.txt, line 1: must be UTF-8 but is not (invalid start byte at byte 1).",
    ),
    "a NUL": bad_file(
        "x.txt.gz", "a\nb\0c\n",
        "x.txt.gz, line 2: must be text but has a NUL or half a surrogate pair in it.",
    ),
    "a blank line": bad_file(
        "x.txt", "a\n\nb\n",
        "x.txt, line 2: must not be blank. Take blank lines out of the file.",
    ),
    "a line of white space at the end": bad_file(
        "x.txt", "a\nb\n \t\u3000\n",
        "x.txt, line 3: must not be blank. Take blank lines out of the file.",
    ),
    "nothing but a byte-order mark": bad_file(
        "x.txt", b"\xef\xbb\xbf",
        "x.txt, line 1: must not be blank. Take blank lines out of the file.",
    ),
    "line ends of old Macintoshes": bad_file(
        "x.txt", "a\rb\rc",
        r"x.txt, line 1: must not have a carriage return (\r) within it. Lines end in \n, or in "
        r"\r\n.",
    ),
    "one file twice": Case(
        file("x.txt", GOOD), [*TEST, "x.txt", "./x.txt"],
        ["each data file must be given once but x.txt is given 2 times."],
    ),
    "all problems of all files": Case(
        both(file("a.txt", "\n"), file("b.json", "{}\n")),
        ["--train_file", "a.txt", "--validation_file", "b.json", "--test_file", "c.txt"],
        ["a.txt, line 1: must not be blank. Take blank lines out of the file.",
         "b.json, line 1: an example must have the key 'text' but has no keys.",
         "there is no file c.txt."],
    ),
}  # fmt: skip

JSON_LINES = {
    "no JSON": ("a", "must be JSON but is not (Expecting value at character 1)."),
    "JSON and more": (
        '{"text": "a"} {"text": "b"}', "must be JSON but is not (Extra data at character 15)."
    ),
    "cut off": (
        '{"text": "a',
        "must be JSON but is not (Unterminated string starting at at character 10).",
    ),
    "Python for JSON": (
        "{'text': 'a'}",
        "must be JSON but is not (Expecting property name enclosed in double quotes at character "
        "2).",
    ),
    "a list": ('["a"]', 'must be a JSON object, as in {"text": "..."}, but got ["a"].'),
    "a text": ('"a"', 'must be a JSON object, as in {"text": "..."}, but got "a".'),
    "null": ("null", 'must be a JSON object, as in {"text": "..."}, but got null.'),
    "blank": ("", "must be a JSON object but is blank."),
    "no text": ('{"txt": "a"}', "an example must have the key 'text' but has 'txt'."),
    "no keys": ("{}", "an example must have the key 'text' but has no keys."),
    "a number for the text": ('{"text": 3}', "'text' must be a string but got 3."),
    "null for the text": ('{"text": null}', "'text' must be a string but got null."),
    "a truth value for the text": ('{"text": true}', "'text' must be a string but got true."),
    "a list for the text": ('{"text": ["a"]}', "'text' must be a string but got [\"a\"]."),
    "an object for the text": ('{"text": {"a": 1}}', "'text' must be a string but got {\"a\": 1}."),
    "an empty text": (
        '{"text": ""}', "'text' must not be blank. Take blank lines out of the file."
    ),
    "a blank text": (
        '{"text": " \\n"}', "'text' must not be blank. Take blank lines out of the file."
    ),
    "half a surrogate pair": (
        '{"text": "a \\ud83d"}',
        "'text' must be text but has a NUL or half a surrogate pair in it.",
    ),
    "an escaped NUL": (
        '{"text": "a\\u0000"}', "'text' must be text but has a NUL or half a surrogate pair in it."
    ),
    "null for the labels": (
        '{"text": "a", "labels": null}', "'labels' must be a string but got null."
    ),
    "a list for the labels": (
        '{"text": "a", "labels": [1]}', "'labels' must be a string but got [1]."
    ),
    "blank labels": (
        '{"text": "a", "labels": " "}',
        "'labels' must not be blank. Take blank lines out of the file.",
    ),
    "a prefix without a target": (
        '{"prefix": "The cat"}', "must have 'target' beside 'prefix', or 'text', but has neither."
    ),
    "a target without a prefix": (
        '{"target": "s"}', "must have 'prefix' beside 'target', or 'text', but has neither."
    ),
    "a prefix that is no text": (
        '{"prefix": 1, "target": "s"}', "'prefix' must be a string but got 1."
    ),
    "a blank target": (
        '{"prefix": "The cat", "target": " "}',
        "'target' must not be blank. Take blank lines out of the file.",
    ),
    "a target beside a text": (
        '{"prefix": "The cat", "target": "s", "text": "The cats"}',
        "must have either 'text' or 'prefix' and 'target' but has all of them.",
    ),
    "a region beyond the text": (
        '{"text": "a b", "regions": [["x", 2, 4]]}',
        "region 'x' must lie in the text, which has 3 characters, but is from 2 to 4.",
    ),
    "a region in the target": (
        '{"prefix": "a", "target": "b", "regions": [["x", 0, 2]]}',
        "regions must not overlap, but 'x' is from 0 to 2 and 'target' from 1 to 2.",
    ),
    "words of another text": (
        '{"text": "a b", "words": ["a", "c"]}',
        "'words' must follow one another in the text, but word 2 is 'c' where the text goes on "
        "with 'b' (character 2).",
    ),
    "a key given twice": (
        '{"text": "a", "text": "b"}', "must be JSON but is not (key 'text' is given twice)."
    ),
    "lists in lists": (
        '{"text": "a", "x": ' + "[" * 60 + "]" * 60 + "}",
        "must be JSON but is nested too deep to be read.",
    ),
    "lists in lists by the thousand": (
        "[" * 100_000, "must be JSON but is nested too deep to be read."
    ),
}  # fmt: skip
JSON_FILES = {
    f"JSON: {name}": bad_file(
        "x.json.gz", f'{{"text": "first"}}\n{line}\n', f"x.json.gz, line 2: {said}"
    )
    for name, (line, said) in JSON_LINES.items()
    if "labels" not in name
} | {
    f"JSON: {name}": bad_file("x.jsonl", f"{line}\n", f"x.jsonl, line 1: {said}")
    for name, (line, said) in JSON_LINES.items()
    if "labels" in name
}
JSON_FILES |= {
    "labels in the first line only": bad_file(
        "x.json", '{"text": "a", "labels": "a"}\n{"text": "b"}\n',
        "x.json: either all lines must have 'labels' or none, but line 1 has them and line 2 has "
        "not.",
    ),
    "labels in the second line only": bad_file(
        "x.json", '{"text": "a"}\n{"text": "b", "labels": "b"}\n',
        "x.json: either all lines must have 'labels' or none, but line 2 has them and line 1 has "
        "not.",
    ),
}  # fmt: skip

METADATA = {
    "too few lines": metadata(
        "{}\n",
        "metadata must have one line for each line of the data, but x_metadata.json.gz has 1 and "
        "x.txt.gz has 2.",
    ),
    "too many lines": metadata(
        "{}\n" * 3,
        "metadata must have one line for each line of the data, but x_metadata.json.gz has 3 and "
        "x.txt.gz has 2.",
    ),
    "none at all": metadata(
        "",
        "metadata must have one line for each line of the data, but x_metadata.json.gz has 0 and "
        "x.txt.gz has 2.",
    ),
    "regions that are names": metadata(
        '{}\n{"regions": ["north"]}\n',
        "x_metadata.json.gz, line 2: a region must be [name, start, end], with characters from 0 "
        "and its end behind its start, but got \"north\".",
    ),
    "words that are a number": metadata(
        '{"words": 7}\n{}\n',
        "x_metadata.json.gz, line 1: 'words' must be a list of strings, the words of the text in "
        "order, but got 7. If it is something else, give it another name.",
    ),
    "words that are left": metadata(
        '{}\n{"words": ["The", "women"]}\n',
        "x_metadata.json.gz, line 2: 'words' must cover the text, but 'drank.' is left after "
        "the last of them (character 10).",
    ),
    "words here and there": Case(
        both(
            file("y.json", '{"text": "a b", "words": ["a", "b"]}\n'),
            file("y_metadata.json", '{"words": ["a", "b"]}\n'),
        ),
        [*TEST, "y.json"],
        ["y.json, line 1: has 'words', and so have its metadata. Give them once."],
    ),
    "no object": metadata(
        "[1]\n{}\n",
        'x_metadata.json.gz, line 1: must be a JSON object, as in {"text": "..."}, but got [1].',
    ),
    "blank": metadata(
        "{}\n\n", "x_metadata.json.gz, line 2: must be a JSON object but is blank."
    ),
    "a key given twice": metadata(
        '{"a": 1, "b": 2, "a": 3}\n{}\n',
        "x_metadata.json.gz, line 1: must be JSON but is not (key 'a' is given twice).",
    ),
    "a key given twice, deeper": metadata(
        '{}\n{"a": [{"b": 1, "b": 1}]}\n',
        "x_metadata.json.gz, line 2: must be JSON but is not (key 'b' is given twice).",
    ),
    "NaN": metadata(
        '{"a": NaN}\n{}\n',
        "x_metadata.json.gz, line 1: must be JSON but is not (JSON has no NaN; what is missing is "
        "null).",
    ),
    "Infinity": metadata(
        '{}\n{"a": -Infinity}\n',
        "x_metadata.json.gz, line 2: must be JSON but is not (JSON has no -Infinity; what is "
        "missing is null).",
    ),
    "a huge exponent": metadata(
        '{"a": 1e999}\n{}\n',
        "x_metadata.json.gz, line 1: must be JSON but is not (1e999 is too large for a number).",
    ),
    "an integer of 5,000 digits": metadata(
        f'{{"a": {"7" * 5000}}}\n{{}}\n',
        f"x_metadata.json.gz, line 1: must be JSON but is not ({'7' * 40}... is too large for an "
        "integer).",
    ),
    "the name of a column": metadata(
        '{"surprisal": 1}\n{}\n',
        "x_metadata.json.gz: metadata must not have the key 'surprisal', which is the name of a "
        "column of the results. Rename it.",
    ),
    "an empty key": metadata(
        '{"": 1}\n{}\n',
        "x_metadata.json.gz, line 1: a key must be the name of a column but is ''.",
    ),
    "a line feed in a key": metadata(
        '{"a\\nb": 1}\n{}\n',
        r"x_metadata.json.gz, line 1: a key must be the name of a column but is 'a\nb'.",
    ),
    "half a surrogate pair in a key": metadata(
        '{"a\\udc00": 1}\n{}\n',
        r"x_metadata.json.gz, line 1: a key must be the name of a column but is 'a\udc00'.",
    ),
    "half a surrogate pair": metadata(
        '{}\n{"a": [{"b": "\\ud83d"}]}\n',
        "x_metadata.json.gz, line 2: 'a' must be text but has a NUL or half a surrogate pair in "
        "it.",
    ),
    "a NUL": metadata(
        '{"a": "x\\u0000"}\n{}\n',
        "x_metadata.json.gz, line 1: 'a' must be text but has a NUL or half a surrogate pair in "
        "it.",
    ),
    "lists in lists": metadata(
        '{"a": ' + "[" * 51 + "]" * 51 + "}\n{}\n",
        "x_metadata.json.gz, line 1: must be JSON but is nested too deep to be read.",
    ),
    "a link to nothing": Case(
        both(file("x.txt", GOOD), link("x_metadata.json", "gone.json")), [*TEST, "x.txt"],
        ["there is no file x_metadata.json."],
    ),
    "two files": Case(
        both(
            file("x.txt", GOOD), file("x_metadata.json", "{}\n{}\n"),
            file("x_metadata.json.gz", "{}\n{}\n"),
        ),
        [*TEST, "x.txt"],
        ["x.txt must have its metadata in one file, but there are x_metadata.json.gz and "
         "x_metadata.json. Remove those that are not meant."],
    ),
    "not gzipped": Case(
        both(file("x.txt", GOOD), raw("x_metadata.json.gz", b"{}\n{}\n")), [*TEST, "x.txt"],
        ["a file named .gz must be gzipped but x_metadata.json.gz is not."],
    ),
}  # fmt: skip

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

TABLE = {
    f"{kind}: {name}": case
    for kind, table in (
        ("data", DATA_FILES),
        ("data", JSON_FILES),
        ("metadata", METADATA),
        ("config", CONFIG_FILES),
        ("arguments", ARGUMENTS),
    )
    for name, case in table.items()
}
