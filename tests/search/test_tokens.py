"""Words: a text and a question about it go through the same steps; no character of a question is syntax."""

import re
import unicodedata

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from resonance._core import Connection, foreign_runs, humps_apart, signs_as_words
from resonance.search import text as fulltext
from resonance.search import tokens

MANY = settings(
    deadline=None, database=None, derandomize=True, max_examples=300, phases=(Phase.explicit, Phase.generate)
)

LETTERS = st.characters(categories=("Lu", "Ll", "Lo", "Nd"), max_codepoint=0xFFFF)

pytestmark = pytest.mark.skipif(fulltext.unable() is not None, reason="this engine has no text search")


class Index:
    """An index of a few texts, asked as the database asks it."""

    def __init__(self, *texts):
        self.connection = Connection(":memory:")
        self.connection.execute(fulltext._CREATE)
        for number, text in enumerate(texts):
            self.connection.execute(
                "INSERT INTO text_index (rowid, title, body) VALUES (?, '', ?)", (number, tokens.plain(text))
            )

    def __call__(self, text):
        asked = tokens.question(text)
        if asked.any is None:
            return []
        sql = "SELECT rowid FROM text_index WHERE text_index MATCH ?"
        found = {row[0] for row in self.connection.execute(sql, (asked.any,))}
        for phrase in asked.all:
            found &= {row[0] for row in self.connection.execute(sql, (phrase,))}
        return sorted(found)


@pytest.mark.parametrize(
    ("text", "found", "not_found"),
    [
        ("数据库管理系统", ["数据库", "数据", "管理系统", "库", "统", "系统"], ["据数", "电脑", "统计"]),
        ("日本語の全文検索エンジン", ["全文検索", "検索", "エンジン", "語", "ｴﾝｼﾞﾝ"], ["英語学習", "車"]),
        ("한국어 형태소 분석기를 쓴다", ["형태소", "분석기", "분석", "를", "한국어"], ["영어"]),
        ("การค้นหาข้อความภาษาไทย", ["ค้นหา", "ภาษาไทย", "ข้อความ"], ["แมว"]),
        ("مُحَرِّك البحث العربي", ["محرك", "مُحَرِّك", "البحث", "العـــربي"], ["قاعدة"]),
        ("שָׁלוֹם עולם", ["שלום", "שָׁלוֹם", "עולם"], ["ספר"]),
        ("हिन्दी में खोज", ["हिन्दी", "खोज"], ["हिन"]),
        ("Überblick über die Straße", ["uberblick", "ÜBERBLICK", "strasse", "STRASSE", "Straße"], ["blick"]),
        ("Café déjà vu", ["cafe", "CAFÉ", "cafe\u0301", '"deja vu"'], ["caf"]),
        ("a party 🎉 for you", ["🎉", "party🎉", "🎉️"], ["🎈"]),
        ("C++20 and C# beside C", ["C++", "c++", "C++20", "c#", "C"], ["F#", "notepad++"]),
        ("C\\# or C\\+\\+", ["C#", "C++", "C"], ["F#"]),
        ("une intelligence", ["l'intelligence", "L\u2019Intelligence"], ["l'un", '"l\'intelligence"']),
        ("Alice and O'Reilly", ["Alice's", "o\u2019reilly", "reilly", '"O\'Reilly"'], ["O'Neil's"]),
        ("call foo_bar now", ["foo_bar", "foo", "bar", "FOO_BAR"], ["bar_foo", "foobar"]),
        ("the camelCase name", ["camelCase", "CAMELCASE"], ["camel"]),
        ("ﬁle \uff15", ["file", "5"], []),
        ("SQLite数据库 入门", ["sqlite", "数据库", '"SQLite数据库"', '"数据库 入门"'], ['"数据 入门"']),
        ("x\u0301y z", ["xy", "z"], []),
        ("στην Ελλάδα, Ὀδυσσεύς", ["ελλαδα", "ΕΛΛΑΔΑ", "ελλάδα", "οδυσσευς"], ["Ὀδυσσέως"]),
        ("зелёная Ёлка", ["елка", "зеленая", "ЁЛКА", "зелёная"], ["лка"]),
        ("أحمد قرأ القرآن", ["احمد", "قرا", "القران", "أَحْمَد"], ["حمد"]),
        ("Iğd\u0131r ve İstanbul", ["\u0131ğd\u0131r", "IĞDIR", "igdir", "istanbul"], ["stanbul"]),
        ("Łódź, Øresund, Đà Nẵng", ["lodz", "ŁÓDŹ", "oresund", "ØRESUND", "da", "nang"], ["odz"]),
        ("Œuvre et Encyclopædia", ["oeuvre", "œuvre", "ENCYCLOPÆDIA", "encyclopaedia"], ["uvre"]),
        ("ᲥᲐᲠᲗᲣᲚᲘ ᏣᎳᎩ", ["ქართული", "ꮳꮃꭹ"], []),
        ("Donau\u00addampf\u00adschiff", ["donaudampfschiff", "Donau\u00addampfschiff"], ["dampf"]),
        ("ශ්\u200dරී ලංකාව", ["ශ්රී", "ශ්\u200dරී"], ["රී"]),
        ("a team 👩\u200d💻", ["👩\u200d💻", "👩", "💻"], ["🎈"]),
    ],
)
def test_what_is_found_and_what_is_not(text, found, not_found):
    ask = Index(text, "something else entirely", "noch etwas")
    for question in found:
        assert ask(question) == [0], question
    for question in not_found:
        assert ask(question) == [], question


@pytest.mark.parametrize("emoji", "⏰⏳⌚⌛⏩⏸▶◀↔⤴⌨⏏↩▪◻〰〽☀✅⭐🎉")
def test_an_emoji_is_a_word(emoji):
    ask = Index(f"due{emoji}today", f"{emoji}\ufe0f in colour", "due today")
    assert ask(emoji) == ask(f"{emoji}\ufe0f") == [0, 1]
    assert ask(f'"due {emoji} today"') == [0]


def test_an_arrow_is_none():
    ask = Index("alpha → beta", "alpha→gamma")
    assert ask("→") == []
    assert ask('"alpha beta"') == [0]
    assert ask("alpha→gamma") == [1]


def test_every_character_of_a_dense_script_is_found_wherever_it_stands():
    run = "天地玄黄宇宙洪荒日月盈昃"
    ask = Index(run, "辰宿列张")
    for at in range(len(run)):
        assert ask(run[at]) == [0]
        assert ask(f'"{run[at:]}"') == [0]
        assert ask(f'"{run[: at + 1]}"') == [0]


def test_phrases_are_the_only_syntax():
    ask = Index("alpha beta gamma", "gamma beta alpha")
    assert ask("alpha beta") == [0, 1]
    assert ask('"alpha beta"') == [0]
    assert ask('gamma "alpha beta"') == [0]
    assert ask('"beta alpha" "gamma beta"') == [1]
    assert ask('"alpha beta') == [0, 1]  # one that never ends is no phrase


@pytest.mark.parametrize(
    "text",
    [
        "alpha AND", "NOT alpha", "alpha NEAR beta", "NEAR(alpha beta, 2)", "alpha*", "^alpha", "-alpha",
        "title:alpha", "{title body}: alpha", "(alpha", "alpha)", "alpha + beta", "alpha ' OR 1=1 --",
        "alpha\0beta", "alpha \ud800 beta", 'alpha"', '""alpha""', "alpha; DROP TABLE nodes", "alpha\\",
        "alpha " + "\U0001fae8", "alpha " + "!?" * 1000,
    ],
)  # fmt: skip
def test_operators_are_words(text):
    assert Index("alpha", "beta and gamma")(text)[0] == 0


@pytest.mark.parametrize(
    "text", ["", " ", '"', '""', '"!"', "!?", "\0", "\ud800", "* ^ - ( )", "\u0301", "\u200d"]
)
def test_a_text_without_words_finds_nothing(text):
    assert tokens.question(text).any is None


@MANY
@given(st.text(max_size=60))
@pytest.mark.filterwarnings("ignore")
def test_any_text_can_be_indexed_and_asked_for(text):
    storable = text.encode("utf-8", "ignore").decode()
    Index(storable.replace("\0", " "))(text)


@MANY
@given(
    st.lists(
        st.text(
            st.characters(categories=("Lu", "Ll", "Lo", "Nd"), max_codepoint=0xFFFF), min_size=1, max_size=6
        ),
        min_size=1,
        max_size=6,
    )
)
def test_what_was_indexed_is_found_by_each_of_its_words(words):
    ask = Index(" ".join(words))
    for word in words:
        asked = tokens.question(word)
        if asked.any is not None and _known(word):
            assert ask(word) == [0], word


def _known(word):
    """Whether SQLite's tables, which are of Unicode 6.1, know the letters of a word."""
    connection = Connection(":memory:")
    connection.execute(f'CREATE VIRTUAL TABLE t USING fts5(x, tokenize="{tokens.TOKENIZER}")')
    connection.execute("INSERT INTO t VALUES (?)", (tokens.plain(word),))
    return bool(
        connection.execute("SELECT sum(sz) FROM (SELECT length(sz) AS sz FROM t_docsize WHERE sz <> x'00')")[
            0
        ][0]
    )


def test_a_megabyte_is_asked_for_by_its_first_words():
    text = " ".join(f"word{number}" for number in range(150_000))
    assert len(text) > 1_000_000
    asked = tokens.question(text)
    assert asked.dropped == 150_000 - tokens.MOST_TERMS
    assert Index("word63", "word64")(text) == [0]
    assert Index("一" * 10)("一二三四五六七八九十" * 100_000) == []


def test_phrases_are_bounded_as_words_are():
    text = " ".join(f'"word{number} x" other{number}' for number in range(1000))
    asked = tokens.question(text)
    assert asked.all == tuple(f'"word{number} x"' for number in range(tokens.MOST_TERMS))
    assert asked.dropped == 2000 - tokens.MOST_TERMS
    held = " ".join(f"word{number} x" for number in range(tokens.MOST_TERMS))
    assert Index(held, held.removesuffix("word63 x"))(text) == [0]


def test_names_are_also_found_by_their_parts():
    assert tokens.names("AssemblyLoadContext") == "AssemblyLoadContext Assembly Load Context"
    assert tokens.names("parseHTMLPage") == "parseHTMLPage parse HTML Page"
    assert tokens.names("theIPx") == "theIPx the I Px"
    assert tokens.names("plain words") == "plain words"


def plain_slowly(text):
    """What `tokens.plain` says, of the whole text step by step."""
    text = text.replace("\\#", "#").replace("\\+", "+")
    text = re.sub(r"([CcFf])#", r"\1 sharp ", text.replace("++", " plusplus "))
    text = re.sub(tokens._UNWRITTEN, "", unicodedata.normalize("NFKD", text)).casefold()
    text = text.translate(str.maketrans(tokens._APART))
    text = unicodedata.normalize("NFKC", text)
    text = re.sub(tokens._EMOJI, lambda match: f" emoji{ord(match[0]):x} ", text)
    return re.sub(tokens._DENSE_RUN, lambda match: f" {' '.join(tokens._pairs(match[0]))} ", text)


def names_slowly(text):
    parts = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", text)
    return plain_slowly(text if parts == text else f"{text} {parts}")


PIECES = st.sampled_from(
    ["C", "c#", "F#", "#", "+", "++", "aB", "HTTPServer", "x2Y", "é", "e", "\u0301", "\u0345", "ß", "ﬁ", "½",
     "Ł", "İ", "Ǆ", "ᾳ", "\u00ad", "—", "日本", "ｴﾝ", "ﾞ", "가", "\u1100", "\u1161", "🎉", "\ufe0f",
     "\U0001d400", "שָׁ", "…", " ", "\n", "word " * 16]
)  # fmt: skip


@MANY
@given(st.lists(PIECES | st.text(max_size=3), max_size=20).map("".join))
@pytest.mark.parametrize(("quick", "slow"), [(tokens.plain, plain_slowly), (tokens.names, names_slowly)])
def test_texts_are_rewritten_piece_by_piece_as_they_would_be_whole(quick, slow, text):
    assert quick(text).casefold() == slow(text).casefold()


@pytest.mark.parametrize("wrong", [None, b"C#", 3])
def test_only_text_is_rewritten(wrong):
    for rewrite in (signs_as_words, humps_apart, foreign_runs):
        with pytest.raises(TypeError):
            rewrite(wrong)


def test_text_that_needs_no_rewriting_is_the_same_object():
    for text in ("", "plain words # of it +", "Über 日本 😀"):
        assert signs_as_words(text) is text
        assert humps_apart(text) is text


def test_a_kind_of_str_is_text_too():
    class Name(str):
        pass

    assert tokens.names(Name("aC#")) == "aC sharp  a C sharp "
    assert tokens.plain(Name("é—C#")) == "e—C sharp "
