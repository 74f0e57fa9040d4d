"""Bad data files and metadata, and what is said of each."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

from bad_input import (
    GOOD,
    PACKED,
    SUFFIXES,
    TEST,
    Case,
    bad_file,
    both,
    file,
    link,
    metadata,
    nothing,
    raw,
)

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
