"""Texts that a command line or a config file may have, among them all that mean something there."""

from __future__ import annotations

from hypothesis import strategies as st

TEXTS = st.text() | st.sampled_from(
    [
        *("1", "1e5", "nan", "True", "None", "{}", "[]", "a.b", "torch.sum", "import:x", "x.txt"),
        *("callable:sum", "json:[1]", "'a'", '"a"', "'", '""', "--name", "-1", "a\nb", "yes", "no"),
        *(
            "null",
            "~",
            "true",
            "__delete_field__",
            "2001-01-01",
            "1:30",
            "012",
            "\x85",
            "é😀",
            "#x",
        ),
        *("- x", "a: b", "!!str", "&a", "*a", " x ", "\ufeff", "", "<<", "=", ".inf", "\t", "\x00"),
        *(
            "a\n\n b",
            "\u2028",
            "a  b " * 60,
            "'\n",
            ".nan",
            "+1",
            "0x1F",
            "1_0",
            "\\",
            "%",
            "@",
            "`",
        ),
    ]
)
