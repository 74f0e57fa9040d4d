"""Write the frames: one sentence each for what is taught, and all of them for what is asked.

    python data.py [--verb blicked]

The two frames of an alternation are sisters; the frames of the other alternations are controls.
Only the verb is ever predicted: the nouns are masks that nobody asks about.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

# By alternation: its two frames. {v} is the verb.
ALTERNATIONS = {
    "dative": {
        "to_object": "The [MASK] has always {v} the [MASK] to the [MASK].",
        "double_object": "The [MASK] has always {v} the [MASK] the [MASK].",
    },
    "object": {
        "transitive": "The [MASK] has always {v} the [MASK].",
        "intransitive": "The [MASK] has always {v}.",
    },
}


def main() -> None:
    """Write the files into data/."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--verb", default="blicked")
    args = parser.parse_args()
    data = Path("data")
    data.mkdir(exist_ok=True)
    texts, metadata = [], []
    for alternation, frames in ALTERNATIONS.items():
        for frame, sentence in frames.items():
            texts.append(sentence.format(v=args.verb) + "\n")
            metadata.append(json.dumps({"alternation": alternation, "frame": frame}) + "\n")
            (data / f"{frame}.txt").write_text(texts[-1], encoding="utf-8")
    (data / "frames.txt").write_text("".join(texts), encoding="utf-8")
    (data / "frames_metadata.jsonl").write_text("".join(metadata), encoding="utf-8")


if __name__ == "__main__":
    main()
