"""What the tests of the command line share: a small vault, and the answer of a command."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

WORDS = {
    "apple": (1, 0.1, 0, 0),
    "pear": (1, 0, 0.1, 0),
    "fruit": (1, 0, 0, 0),
    "car": (0, 1, 0, 0.1),
    "engine": (0, 1, 0.1, 0),
}

NOTES = {
    "Fruit.md": (
        "---\ntitle: Fruit\ntags: [food]\nsummary: What grows on trees\n---\nfruit fruit\n\n[[Apple]]\n"
    ),
    "food/Apple.md": "# Apple\n\napple apple, see [[Fruit]] and [[Nowhere]].\n",
    "food/Pear.md": "# Pear\n\npear pear #food\n\nSee [Apple](Apple.md).\n",
    "Car.md": "# Car\n\ncar with an engine\n",
    "one/Twin.md": "car\n",
    "two/Twin.md": "engine\n",
    "Links.md": "# Links\n\n[[Twin]] and <https://example.org>\n",
}


class Result:
    """What a command answered."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err
        assert "Traceback" not in err, err

    @property
    def json(self) -> Any:
        """The one document on stdout; anything beside it is an error."""
        return json.loads(self.out)

    def __repr__(self) -> str:
        return f"exit code {self.code}\n--- stdout\n{self.out}\n--- stderr\n{self.err}"


Run = Callable[..., Result]
