"""Where the engine cannot search text it says so, and everything else goes on; where it can, it does."""

import pytest

from resonance import Text, engine, errors
from resonance.factory import SAFE_SQLITE, engine_number
from resonance.search import text as fulltext


def test_the_engine_decides(db):
    db.insert_nodes(id=["a", "b"])
    able = engine_number() >= SAFE_SQLITE and "ENABLE_FTS5" in engine()["options"]
    assert (fulltext.unable() is None) == able
    assert db.insert_texts([Text("a", "pears")]) == able
    if able:
        assert [hit.id for hit in db.search_text("pears")] == ["a"]
    else:
        with pytest.raises(errors.TextSearchError, match=r"3\.53\.2|FTS5"):
            db.search_text("pears")
        assert db.query("SELECT count(*) FROM texts") == [(0,)]
    assert db.delete_nodes(["a"]) == 1
