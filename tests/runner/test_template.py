"""Templates: a value reaches a real shell's program as it is, and what is no placeholder is left alone."""

import os
import subprocess

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from runner import template
from runner.values import Value

property_test = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])

NASTY = "'\"$`\\\n\r\t ;&|<>(){}[]*?~#!=%-^,:@+x0é☃\U0001f600\x01\x7f\u00a0\u2028"
TEXTS = st.one_of(
    st.text(alphabet=st.sampled_from(NASTY), max_size=12),
    st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20),
    st.sampled_from(["$HOME", "$(id)", "`id`", "{a}", "{b}", "[flag]", "{{a}}", "-n", "--help", "\\", "'", '"', "''"]),
)

# Each placeholder's place in a command, and what the program is to see. A command substitution ends in a letter,
# because the shell takes newlines off its end.
PLACES: dict[str, str] = {
    "{a}": "{a}",
    "'{a}'": "{a}",
    '"{a}"': "{a}",
    "$'{a}'": "{a}",
    "x{a}y": "x{a}y",
    "--name={a}": "--name={a}",
    "'x {a} y'": "x {a} y",
    '"x {a} y"': "x {a} y",
    "$'x\\t{a}\\'{b}'": "x\t{a}'{b}",
    "{a}{b}": "{a}{b}",
    "'{a}{b}'": "{a}{b}",
    '"{a}{b}"': "{a}{b}",
    "{a}'{b}'\"{a}\"$'{b}'": "{a}{b}{a}{b}",
    '"it\'s {a}"': "it's {a}",
    "'say \"{a}\"'": 'say "{a}"',
    '"say \\"{a}\\" \\$\'{b}\'"': "say \"{a}\" $'{b}'",
    "'a\\'{a}'b'": "a\\{a}b",
    "\"$(printf '%s' {a}; printf x)\"": "{a}x",
    "\"$(printf '%s' '{a}'; printf x)\"": "{a}x",
    '"$(printf \'%s\' "{a}"; printf x)"': "{a}x",
    "\"$(printf '%s' $'{a}'; printf x)\"": "{a}x",
    "\"$( (printf '%s' {a}); printf '%s' \"(\" '{b}'; printf ')x')\"": "{a}({b})x",
    '"{a}$(printf \'%s\' "$(printf \'%s\' "{b}"; printf x)"; printf y){a}"': "{a}{b}xy{a}",
    "\"`printf '%s' {a}; printf x`\"": "{a}x",
    "\"`printf '%s' '{a}'; printf x`\"": "{a}x",
    '"`printf \'%s\' "{a}"; printf x`"': "{a}x",
    "\"`printf '%s' $'{a}'; printf x`\"": "{a}x",
    "\"{a}`printf '%s' {b}; printf x`{a}\"": "{a}{b}x{a}",
}
# In a substitution without quotes the shell splits the output, so that the program inside it is asked.
INNER_PLACES = {
    "$(printf '%s\\0' {a} >&2)": "{a}",
    "$(printf '%s\\0' '{a}' >&2)": "{a}",
    "$(printf '%s\\0' \"{a}\" >&2)": "{a}",
    "`printf '%s\\0' {a} >&2`": "{a}",
    "`printf '%s\\0' '{a}' >&2`": "{a}",
    "`printf '%s\\0' \"{a}\" >&2`": "{a}",
    "`printf '%s\\0' $'{a}' >&2`": "{a}",
}


def bash(command: str) -> tuple[list[str], list[str]]:
    """The NUL-terminated texts that a command writes to its standard output and error."""
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
    done = subprocess.run(["bash", "-c", command], capture_output=True, env=environment, check=False)
    return done.stdout.decode().split("\0")[:-1], done.stderr.decode().split("\0")[:-1]


def fill(expected: str, a: str, b: str) -> str:
    return "".join(
        {"{a}": a, "{b}": b}.get(part, part) for part in expected.replace("{", "\0{").replace("}", "}\0").split("\0")
    )


@property_test
@given(a=TEXTS, b=TEXTS)
@example(a="'\"$`\\\n", b="-")
@example(a="", b="")
@example(a="{b}", b="{a}")
def test_a_value_reaches_the_program_byte_for_byte_wherever_its_placeholder_stands(a: str, b: str) -> None:
    text = f"printf '%s\\0' {' '.join(PLACES)}"
    outputs, _ = bash(template.parse(text).render({"a": a, "b": b}))
    assert dict(zip(PLACES, outputs, strict=True)) == {place: fill(wanted, a, b) for place, wanted in PLACES.items()}


@property_test
@given(a=TEXTS)
def test_a_value_reaches_the_program_inside_an_unquoted_substitution(a: str) -> None:
    commands = [template.parse(f": {place}") for place in INNER_PLACES]
    _, outputs = bash("\n".join(command.render({"a": a}) for command in commands))
    assert outputs == [a] * len(INNER_PLACES)


@property_test
@given(value=TEXTS)
def test_a_flag_gives_the_program_its_name_and_its_value(value: str) -> None:
    outputs, _ = bash(template.parse("printf '%s\\0' [flag] 'x [flag]' \"[flag]\" end").render({"flag": value}))
    assert outputs == ["--flag", value, f"x --flag {value}", f"--flag {value}", "end"]


@property_test
@given(value=st.one_of(st.integers(), st.floats(), st.booleans(), st.none()))
def test_other_values_reach_the_program_as_python_prints_them(value: Value) -> None:
    outputs, _ = bash(template.parse("printf '%s\\0' {v} '{v}' \"{v}\"").render({"v": value}))
    assert outputs == [str(value)] * 3


def test_a_value_in_backticks_inside_a_quoted_substitution() -> None:
    outputs, _ = bash(template.parse("printf '%s\\0' \"$(printf %s `printf %s {v}`)\"").render({"v": 'a"b'}))
    assert outputs == ['a"b']


def test_a_number_before_a_redirection_stays_an_argument() -> None:
    outputs, _ = bash(template.parse("printf '%s\\0' {v}>/dev/stdout").render({"v": 2}))
    assert outputs == ["2"]


def test_a_dollar_brace_in_single_quotes_hides_no_placeholder() -> None:
    assert template.parse("sed 's/${//' {file}").names == {"file"}


def test_a_value_in_quotes_after_the_shells_pid() -> None:
    outputs, _ = bash(template.parse("x=$$'{v}'; printf '%s\\0' \"${x#$$}\"").render({"v": "a\\b"}))
    assert outputs == ["a\\b"]


@pytest.mark.parametrize(
    "text",
    [
        "awk '{print $1}' file",
        'echo ${HOME} "${x:-y}" ${#x} ${x[0]}',
        "[[ -f x ]] && [ -f x ] || true",
        "cp a.{txt,csv} b",
        "echo {1..3} {a..c} {} [] [ ] {a b} [a b] [a,b]",
        "python -c 'print({1: 2, \"a\": [1, 2]})'",
        "echo $((1 + 2)) \\{x} \\[x]",
        "echo $1 $@ $? | { cat; }",
    ],
)
def test_what_is_no_placeholder_is_left_alone(text: str) -> None:
    parsed = template.parse(text)
    assert parsed.names == set()
    assert parsed.render({}) == text


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        ("echo {{x}}", "echo {x}"),
        ("echo [[x]]", "echo [x]"),
        ("echo '{{x}}' \"[[x]]\"", "echo '{x}' \"[x]\""),
        ("echo {{x}}{x}", "echo {x}1"),
        ("echo {{{x}}}", "echo {{x}}"),
        ("echo [[{x}]]", "echo [[1]]"),
    ],
)
def test_doubled_brackets_stand_for_themselves(text: str, rendered: str) -> None:
    assert template.parse(text).render({"x": 1}) == rendered


def test_a_literal_in_doubled_braces_needs_no_value() -> None:
    assert template.parse("{{a}} [[b]] {c} [d]").names == {"c", "d"}


@pytest.mark.parametrize(
    "text",
    ["python a.py {x}\n", "  python a.py\n    {x}", "python   a.py {x}".replace("   ", "\n\n\t"), "python a.py {x}"],
)
def test_lines_are_joined_by_one_space(text: str) -> None:
    assert template.parse(text).render({"x": 1}) == "python a.py 1"


def test_the_newlines_of_a_value_stay() -> None:
    outputs, _ = bash(template.parse("printf '%s\\0'\n  {x}\n").render({"x": " a\n\n b\n"}))
    assert outputs == [" a\n\n b\n"]


@pytest.mark.parametrize(
    ("value", "rendered"),
    [
        (True, "cmd --x end"),
        (False, "cmd  end"),
        (None, "cmd  end"),
        (0, "cmd --x 0 end"),
        ("", "cmd --x '' end"),
        ("false", "cmd --x false end"),
        (1e-05, "cmd --x 1e-05 end"),
    ],
)
def test_a_flag_stands_for_true_and_is_left_out_for_false_and_null(value: Value, rendered: str) -> None:
    assert template.parse("cmd [x] end").render({"x": value}) == rendered


def test_a_flag_at_the_end_leaves_no_blank() -> None:
    assert template.parse("cmd [x]").render({"x": False}) == "cmd"


@pytest.mark.parametrize("text", ["cmd {x}", "cmd [x]", "cmd '{x}'", 'cmd "$(a {x})"'])
def test_a_missing_value_is_an_error_that_names_it(text: str) -> None:
    with pytest.raises(KeyError, match=r"^'x'$"):
        template.parse(text).render({"y": 1})


def test_a_value_is_never_expanded_again() -> None:
    parsed = template.parse("cmd {a} [b] {{c}}")
    assert parsed.render({"a": "{b}", "b": "[a]", "c": 1}) == "cmd '{b}' --b '[a]' {c}"


def test_names_may_hold_dots_dashes_and_digits() -> None:
    assert template.parse("{a.b} {a-b} [a_b] {2x} {_output}").names == {"a.b", "a-b", "a_b", "2x", "_output"}


def test_an_adjacent_literal_is_one_part() -> None:
    assert template.parse("python a.py --x {x} y").parts == (
        "python a.py --x ",
        template.Placeholder("x", False, ("bare",)),
        " y",
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("python a.py --x 1\npython b.py --x 1 --y 2 3", [("python a.py --x …", "python b.py --x …")]),
        ("cd sub\npython b.py", [("cd sub", "python b.py")]),
        ("python a.py \\\n  python", []),
        ("python a.py &&\npython b.py", []),
        ("python a.py\n&& python b.py", []),
        ("python a.py\n  --lr 1\n  model=python data=x", []),
        ("if true; then\n  python b.py; fi", []),
        ("python -c 'import os\npython = 3'", []),
        ("  \n\n python a.py \n\n", []),
    ],
)
def test_a_line_that_may_have_been_meant_as_a_command_of_its_own(text: str, expected: list[tuple[str, str]]) -> None:
    assert template.joined_commands(text, {"python", "cd", "if"}.__contains__) == expected


def test_a_backslash_before_a_blank_is_kept_inside_words_and_quotes_only() -> None:
    assert template.parse(r"cp a\ b c").render({}) == r"cp a\ b c"
    assert template.parse(r"grep 'x \ y' f").render({}) == r"grep 'x \ y' f"
    with pytest.raises(template.TemplateError, match="a backslash before a blank"):
        template.parse("python a.py \\ --lr {lr}")
