"""YAML as a researcher means it: numbers, lines, refusals, and the way back."""

import itertools
import math
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from runner import yamlfile
from runner.errors import InputError
from runner.values import Value, canonical
from runner.yamlfile import Document

property_test = settings(suppress_health_check=[HealthCheck.too_slow])


def read(tmp_path: Path, content: str | bytes) -> list[Document]:
    path = tmp_path / "params.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return yamlfile.parse_documents(str(path), yamlfile.read_text(path))


def refusal(tmp_path: Path, content: str | bytes) -> str:
    with pytest.raises(InputError) as caught:
        read(tmp_path, content)
    message = str(caught.value)
    assert message.startswith(str(tmp_path / "params.yaml"))
    assert "\n" not in message
    return message.removeprefix(str(tmp_path / "params.yaml"))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1E3", 1000.0),
        ("-1e-3", -1e-3),
        ("+1e+3", 1000.0),
        ("1.", 1.0),
        ("1.5", 1.5),
        ("1.5e3", 1500.0),
        (".5", 0.5),
        ("-.5", -0.5),
        (".5e1", 5.0),
        ("1_000.5", 1000.5),
        (".inf", math.inf),
        ("-.INF", -math.inf),
        ("0", 0),
        ("-7", -7),
        ("+7", 7),
        ("012", 12),
        ("-012", -12),
        ("08", 8),
        ("0o17", 15),
        ("0x1F", 31),
        ("0b101", 5),
        ("1_000", 1000),
        ("12345678901234567890123", 12345678901234567890123),
        ("1:30", "1:30"),
        ("12:30:45", "12:30:45"),
        ("2024-01-01", "2024-01-01"),
        ("2024-01-01 10:00:00", "2024-01-01 10:00:00"),
        ("1.2.3", "1.2.3"),
        ("e5", "e5"),
        ("1e", "1e"),
        ("1e3x", "1e3x"),
        (".", "."),
        ("inf", "inf"),
        ("nan", "nan"),
        ("_1", "_1"),
        ("'1e-3'", "1e-3"),
        ('"012"', "012"),
        ("true", True),
        ("False", False),
        ("on", True),
        ("off", False),
        ("yes", True),
        ("'on'", "on"),
        ("y", "y"),
        ("null", None),
        ("~", None),
        ("", None),
        ("''", ""),
        ("!!str 12", "12"),
        ("!!float 12", 12.0),
        ("wsdcon_9", "wsdcon_9"),
    ],
)
def test_a_scalar_means_what_a_researcher_means(tmp_path: Path, text: str, value: Value) -> None:
    (document,) = read(tmp_path, f"key: {text}\n")
    got = document.value["key"]
    assert (got, type(got)) == (value, type(value))


def test_nan_is_a_number(tmp_path: Path) -> None:
    assert math.isnan(read(tmp_path, "key: .nan")[0].value["key"])


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("on", "on is read as True; write true or false, or 'on' for the word."),
        ("No", "No is read as False; write true or false, or 'No' for the word."),
        ("012", "012 is read as the number 12; write '012' for the text."),
        ("1:30", "1:30 is read as the text '1:30'; quote it to say so."),
        ("1, 2", "1, 2 is read as one text; write [1, 2] for a list, or quote it to say so."),
        ("(1e-3, .5)", "(1e-3, .5) is read as one text; write [1e-3, .5] for a list, or quote it to say so."),
        ("1 2", "1 2 is read as one text; write [1, 2] for a list, or quote it to say so."),
        ("1\n    - 2", "1 - 2 is read as one text; write [1, 2] for a list, or quote it to say so."),
    ],
)
def test_a_surprising_scalar_is_told_with_its_place(tmp_path: Path, text: str, note: str) -> None:
    (document,) = read(tmp_path, f"a: 1\nkey:\n  - {text}\n")
    assert document.warnings == [f"{tmp_path}/params.yaml, line 3, key.0: {note}"]


@pytest.mark.parametrize(
    "text", ["'on'", '"012"', "'1:30'", "true", "0", "12", "0.5", "0x10", "a:b", "1e-3", "0_o", "'1, 2'", "1-2", "v 2"]
)
def test_a_plain_scalar_is_not_warned_about(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, f"key: {text}")[0].warnings == []


def test_every_document_is_read_with_its_own_lines(tmp_path: Path) -> None:
    first, second, third = read(tmp_path, "# a comment\na: 1\n---\nb:\n  c: [1,\n    2]\n---\n")
    assert (first.value, second.value, third.value) == ({"a": 1}, {"b": {"c": [1, 2]}}, None)
    assert first.lines == {(): 2, ("a",): 2}
    assert second.lines == {(): 4, ("b",): 4, ("b", "c"): 5, ("b", "c", 0): 5, ("b", "c", 1): 6}


def test_a_place_that_stands_nowhere_is_told_by_the_nearest_above_it(tmp_path: Path) -> None:
    (document,) = read(tmp_path, "a:\n  b: 1\n")
    assert str(document.place(("a", "b"))) == f"{tmp_path}/params.yaml, line 2, a.b"
    assert str(document.place(("a", "x", "y"))) == f"{tmp_path}/params.yaml, line 1, a.x.y"


@pytest.mark.parametrize("content", ["", "# only a comment\n", "\n\n", b"\xef\xbb\xbf"])
def test_an_empty_file_holds_nothing(tmp_path: Path, content: str | bytes) -> None:
    assert [document.value for document in read(tmp_path, content)] == []


def test_windows_line_ends_and_a_byte_order_mark_do_no_harm(tmp_path: Path) -> None:
    (document,) = read(tmp_path, b"\xef\xbb\xbfa: 1\r\nb: x\r\n")
    assert document.value == {"a": 1, "b": "x"}
    assert document.lines["b",] == 2


@pytest.mark.parametrize(
    ("content", "start", "hint"),
    [
        ("a: 1\nb: 2\na: 3\n", ", line 3, a: ", "the key stands here twice; remove one of them."),
        ("x:\n  a: 1\n  a: 1\n", ", line 3", "twice"),
        ("x: {1: a, '1': b}\n", ", line 1, 1: ", "twice"),
        ("- {a: 1}\n- {b: 1, b: 2}\n", ", line 2, b: ", "twice"),
        ("a: 1\n\tb: 2\n", ", line 2: ", "tab"),
        ("a: 1\nb: [1, 2\nc: 3\n", ", line 3: ", "not YAML"),
        ("a: 'x\nb: 1\n", ", line ", "not YAML"),
        ("a: b: c\n", ", line 1: ", "not YAML"),
        ("a: 'x' y\n", ", line 1: ", "must stand in quotes"),
        ("a: {b} c\n", ", line 1: ", "must stand in quotes"),
        ("a: [*.py]\n", ", line 1: ", "must stand in quotes"),
        ("a: %b\n", ", line 1: ", "must stand in quotes"),
        (b"a: 1\nb: \xff\n", ", line 2: ", "not UTF-8 (byte 0xff)."),
        ("a: 1\n".encode("utf-16"), ", line 1: ", "not UTF-8"),
        ("a: 1\nb: *x\n", ", line 2: ", "undefined alias"),
        ("a: 1\nb: !!python/object/apply:os.getcwd []\n", ", line 2, b: ", "not allowed; write plain values."),
        ("a: !!python/tuple [1]\n", ", line 1, a: ", "write plain values"),
        ("a: !mine x\n", ", line 1, a: ", "'!mine' is not allowed"),
        ("a: !!binary aGk=\n", ", line 1, a: ", "write plain values"),
        ("a: !!timestamp 2024-01-01\n", ", line 1, a: ", "write plain values"),
        ("a:\n  b: !!int x\n", ", line 2, a.b: ", "'x' is no int"),
        ("a: 0x_\n", ", line 1, a: ", "'0x_' is no int"),
        ("a: !!bool 12\n", ", line 1, a: ", "'12' is no bool"),
        ("? [1, 2]\n: x\n", ", line 1: ", "a key must be a name"),
        ("a: &a [*a]\n", ", line 1, a.0", "an anchor inside itself?"),
        ("a: &a\n  b: *a\n", ", line 1, a.b.b", "an anchor inside itself?"),
        ("a: 1\n<<: 5\n", ", line 1: ", "'<<' takes a mapping or a list of mappings."),
        ("<<: [{a: 1}, 2]\n", ", line 1: ", "'<<' takes a mapping"),
        ("%YAML 9.9\n---\na: 1\n", ", line 1: ", "incompatible"),
        ("[" * 150 + "]" * 150, ", line 1", "nested deeper than 100 levels"),
    ],
)
def test_a_refusal_names_the_line_and_the_reason(tmp_path: Path, content: str | bytes, start: str, hint: str) -> None:
    message = refusal(tmp_path, content)
    assert message.startswith(start)
    assert hint in message


@pytest.mark.parametrize("content", ["a:\n\tb: 1\n", "a: 1\n---\n\tlr: 1\n"])
def test_a_tab_that_indents_is_called_a_tab(tmp_path: Path, content: str) -> None:
    assert "a tab; YAML is indented with spaces" in refusal(tmp_path, content)


def test_a_control_character_is_refused_with_its_line(tmp_path: Path) -> None:
    assert refusal(tmp_path, "a: 1\nb: \x01\n").startswith(", line 2")


def test_a_tag_on_a_key_is_refused(tmp_path: Path) -> None:
    refusal(tmp_path, "!mine a: 1\n")


def test_an_equals_sign_is_text(tmp_path: Path) -> None:
    assert read(tmp_path, "a: =\n")[0].value == {"a": "="}


def test_a_control_character_is_refused(tmp_path: Path) -> None:
    assert "control characters are not allowed" in refusal(tmp_path, "a: 1\nb: \0\n")


def test_a_missing_file_says_how_to_name_another(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.yaml: no such file\. .* with -y\."):
        yamlfile.read_text(tmp_path / "none.yaml")
    with pytest.raises(InputError, match="is a directory; -y takes a YAML file"):
        yamlfile.read_text(tmp_path)
    (tmp_path / "params.yaml").touch()
    with pytest.raises(InputError, match="cannot be read: Not a directory"):
        yamlfile.read_text(tmp_path / "params.yaml" / "x")


def test_anchors_repeat_values(tmp_path: Path) -> None:
    (document,) = read(tmp_path, "a: &seeds [1, 2]\nb: *seeds\nc: &x word\nd: [*x, *x]\n")
    assert document.value == {"a": [1, 2], "b": [1, 2], "c": "word", "d": ["word", "word"]}


def test_an_anchor_bomb_is_refused_before_it_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yamlfile, "MAX_NODES", 5_000)
    names = "abcdefghij"
    text = "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
    for known, new in itertools.pairwise(names):
        text += f"{new}: &{new} [{', '.join([f'*{known}'] * 10)}]\n"
    assert "more than 5000 values; anchors that repeat each other?" in refusal(tmp_path, text)


def test_as_many_values_as_a_large_sweep_has_are_read(tmp_path: Path) -> None:
    (document,) = read(tmp_path, f"seed: [{', '.join(map(str, range(5000)))}]")
    assert document.value == {"seed": list(range(5000))}


@pytest.mark.parametrize("own", ["{a: 1, <<: *base}", "{<<: *base, a: 1}"])
def test_a_merge_fills_what_the_mapping_leaves_unset(tmp_path: Path, own: str) -> None:
    (document,) = read(tmp_path, f"base: &base {{a: 0, b: 2}}\nown: {own}\n")
    assert document.value["own"] == {"a": 1, "b": 2}


def test_of_several_merges_the_first_counts(tmp_path: Path) -> None:
    (document,) = read(tmp_path, "p: &p {a: 1, b: 1}\nq: &q {b: 2, c: 2}\nown: {<<: [*p, *q], c: 3}\n")
    assert document.value["own"] == {"a": 1, "b": 1, "c": 3}


def test_a_key_that_overrides_a_merged_one_keeps_its_own_line(tmp_path: Path) -> None:
    (document,) = read(tmp_path, "own:\n  a: 1\n  <<:\n    a: 2\n")
    assert document.value == {"own": {"a": 1}}
    assert document.lines["own", "a"] == 2


# --- dump and load ---

TEXTS = st.one_of(
    st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=30),
    st.text(alphabet="0123456789_+-.:eExXobn", max_size=8),
    st.sampled_from(
        ["1e-3", "on", "No", "012", "1:30", "null", "~", "", " ", "\n", "a\n\n b", "#", "- a", "a: b", "<<", "=", "---"]
    ),
)
VALUES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXTS)


def typed(value: Value) -> tuple[str, type]:
    return canonical(value), type(value)


@property_test
@given(value=VALUES)
@example(value=1e-05)
@example(value=1e22)
@example(value=math.inf)
@example(value=-math.inf)
@example(value=math.nan)
@example(value=-0.0)
@example(value="1e-3")
@example(value="\x85\u2028\ufeff\x7f\x00\x1b")
@example(value="2024-01-01")
@example(value="\U0001f600 é")
def test_what_is_dumped_is_loaded_with_the_same_type(value: Value) -> None:
    text = yamlfile.dump({"key": value, "list": [value]})
    loaded = yamlfile.load(text)
    assert typed(loaded["key"]) == typed(value)
    assert typed(loaded["list"][0]) == typed(value)
    for loader in (yaml.SafeLoader, yaml.FullLoader):
        assert typed(yaml.load(text, Loader=loader)["key"]) == typed(value)


@property_test
@given(key=TEXTS)
def test_a_key_is_dumped_and_loaded_as_text(key: str) -> None:
    assert yamlfile.load(yamlfile.dump({key: 1})) == {key: 1}


@pytest.mark.parametrize("text", ["08", "-09", "0o17"])
def test_text_that_only_our_loader_reads_as_a_number_keeps_its_type(text: str) -> None:
    assert yamlfile.load(yamlfile.dump({"key": text})) == {"key": text}


def test_keys_keep_their_order() -> None:
    assert list(yamlfile.load(yamlfile.dump({"z": 1, "a": 2, "m": 3}))) == ["z", "a", "m"]


def test_a_long_text_stays_on_one_line() -> None:
    assert yamlfile.dump({"key": "word " * 500}).count("\n") == 1


def test_a_tuple_that_an_older_runner_wrote_is_read() -> None:
    assert yamlfile.load("key: !!python/tuple [1, 1e-3]") == {"key": (1, 1e-3)}


@pytest.mark.parametrize("text", ["a: !!python/object/apply:os.getcwd []", "a: [", "a: !x 1"])
def test_a_broken_or_unsafe_text_is_not_loaded(text: str) -> None:
    with pytest.raises(yaml.YAMLError):
        yamlfile.load(text)
