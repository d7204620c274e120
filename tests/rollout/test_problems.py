"""Generated problems: solvable, checked by an independent program, deterministic, splits apart."""

from __future__ import annotations

import ast
import gzip
import itertools
import json
import operator
import re
import shlex
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.tiny import REAL_DATA
from typer.testing import CliRunner

from onestage.cli._terminal import app
from onestage.data.recognise import advice
from onestage.data.sentences import sentences
from onestage.data.stream import Stream
from onestage.rollout.rewards import _problems as rows
from onestage.rollout.rewards._puzzles import Claim, content
from onestage.rollout.rewards.countdown import Countdown
from onestage.rollout.rewards.gsm8k import GSM8K
from onestage.rollout.rewards.knights_knaves import KnightsKnaves
from onestage.rollout.rewards.math import Math, boxed

OPERATORS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def calculated(text: str) -> tuple[Fraction, list[int]]:
    """By Python's own parser: the value of an expression and its numbers."""
    numbers: list[int] = []

    def of(node: ast.AST) -> Fraction:
        if isinstance(node, ast.Constant):
            assert type(node.value) is int
            numbers.append(node.value)
            return Fraction(node.value)
        assert isinstance(node, ast.BinOp), ast.dump(node)
        return OPERATORS[type(node.op)](of(node.left), of(node.right))

    return of(ast.parse(text, mode="eval").body), numbers


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    few=st.integers(2, 5),
    more=st.integers(0, 2),
    operators=st.sampled_from(["+-*/", "+-", "*/+", "-"]),
    template=st.sampled_from(["tinyzero", "short"]),
)
def test_countdown_problems_are_solved_by_their_solutions(
    seed: int, few: int, more: int, operators: str, template: Any
) -> None:
    made = Countdown.rows(
        5,
        seed=seed,
        numbers=(few, few + more),
        given=(1, 60),
        target=(2, 200),
        operators=operators,
        template=template,
    )
    for row in made:
        value, numbers = calculated(row["answer"])
        assert value == row["target"]
        assert sorted(numbers) == sorted(row["nums"])
        assert few <= len(numbers) <= few + more
        assert all(1 <= n <= 60 for n in numbers)
        assert 2 <= row["target"] <= 200
        assert set(re.findall(r"[-+*/]", row["answer"])) <= set(operators)
        *worked, last = row["solution"]
        for step in worked:
            left, right = step.split(" = ")
            assert calculated(left)[0] == int(right)
            assert step.endswith("\n")
        assert len(worked) == len(numbers) - 1
        assert last == f"Therefore, the final equation is {row['answer']}"
        joined = "".join(row["solution"])
        assert row["completion"].startswith(joined)
        assert row["completion"].endswith(f"\n<answer> {row['answer']} </answer>")
        for number in row["nums"]:
            assert str(number) in row["prompt"]


def test_the_prompts() -> None:
    row = next(iter(Countdown.rows(1, numbers=(3, 3))))
    nums, target = row["nums"], row["target"]
    assert row["prompt"] == (
        "A conversation between User and Assistant. The user asks a question, and the Assistant solves "
        "it. The assistant first thinks about the reasoning process in the mind and then provides the "
        f"user with the answer.\nUser: Using the numbers {nums}, create an equation that equals {target}"
        ". You can use basic arithmetic operations (+, -, *, /) and each number can only be used once. "
        "Show your work in <think> </think> tags. And return the final answer in <answer> </answer> "
        "tags, for example <answer> (1 + 2) / 3 </answer>.\nAssistant: Let me solve this step by step.\n"
        "<think> "
    )
    assert row["completion"] == (
        "".join(row["solution"]) + f" </think>\n<answer> {row['answer']} </answer>"
    )
    short = next(iter(Countdown.rows(1, numbers=(3, 3), template="short")))
    assert short["prompt"] == f"{' '.join(map(str, nums))} = {target}\n"
    assert "think>" not in short["completion"]


def test_the_same_arguments_give_the_same_problems() -> None:
    first, again = (list(Countdown.rows(50, seed=3)) for _ in range(2))
    assert first == again
    assert list(Countdown.rows(50, seed=4)) != first
    assert list(KnightsKnaves.rows(20, seed=1)) == list(KnightsKnaves.rows(20, seed=1))


def test_train_and_test_share_no_countdown_problem() -> None:
    """Whatever the seeds; few numbers make it likely that both would meet the same problem."""

    def made(seed: int, split: Any) -> list[tuple[Any, ...]]:
        options = {"numbers": (2, 3), "given": (1, 12), "target": (1, 30)}
        found = [
            (*sorted(row["nums"]), row["target"])
            for row in Countdown.rows(200, seed=seed, split=split, **options)
        ]
        assert len(set(found)) == len(found)
        return found

    train, test = set(made(0, "train") + made(1, "train")), set(made(2, "test") + made(0, "test"))
    assert not train & test
    assert set(made(5, "all")) & test
    assert set(made(5, "all")) & train


def test_too_many_problems_are_refused() -> None:
    options = {"numbers": (2, 2), "given": (1, 3), "target": (1, 6), "operators": "+"}
    with pytest.raises(ValueError, match=r"only \d of 100 different problems found"):
        list(Countdown.rows(100, split="all", **options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"numbers": (1, 3)}, "numbers: needs 2 <= from <= to, got 1 to 3"),
        ({"given": (9, 3)}, "given: needs 1 <= from <= to, got 9 to 3"),
        ({"target": (0, 3)}, "target"),
        ({"operators": "+^"}, r"operators '\+\^': allowed are"),
        ({"split": "dev"}, "split 'dev': allowed are train, test and all"),
        ({"template": "long"}, "template 'long': allowed are tinyzero and short"),
    ],
)
def test_wrong_options_of_countdown(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        list(Countdown.rows(1, **options))


# Knights and knaves, read back from the English of the prompt.

CLAIM = re.compile(r"(\w+) says that (.+)\.")


def holds(text: str, roles: dict[str, bool]) -> bool:
    """The truth of a claim in English, by nothing but the text."""
    if text.startswith("it is not true that "):
        return not holds(text.removeprefix("it is not true that "), roles)
    if text.startswith("if "):
        condition, then = text.removeprefix("if ").split(" then ")
        return not holds(condition, roles) or holds(then, roles)
    for word, combine in (
        (" if and only if ", operator.eq),
        (" and ", operator.and_),
        (" or ", operator.or_),
    ):
        if word in text:
            left, right = text.split(word)
            return combine(holds(left, roles), holds(right, roles))
    name, role = text.split(" is a ")
    return roles[name] == (role == "knight")


@pytest.mark.parametrize("people", [2, 3, 5, 7])
def test_exactly_one_assignment_agrees_with_the_claims(people: int) -> None:
    for row in KnightsKnaves.rows(25, seed=people, people=(people, people)):
        names = row["names"]
        sentences = row["prompt"].split("people: ")[1].split(" Who is")[0].split(". ")[1:]
        claims = dict(CLAIM.fullmatch(s.rstrip(".") + ".").groups() for s in sentences)
        assert list(claims) == names
        agree = [
            roles
            for roles in itertools.product((True, False), repeat=people)
            if all(
                holds(claims[name], dict(zip(names, roles, strict=True))) == role
                for name, role in zip(names, roles, strict=True)
            )
        ]
        assert agree == [tuple(row["truth"])]
        lines = [
            f"({i}) {name} is a {'knight' if role else 'knave'}"
            for i, (name, role) in enumerate(zip(names, row["truth"], strict=True), 1)
        ]
        assert row["answer"] == "\n".join(lines)
        assert "".join(row["solution"]).endswith("\nTherefore, " + "\n".join(lines))
        assert row["completion"].endswith(f" </think>\n<answer> {row['answer']} </answer>")


def test_every_step_of_the_reasoning_is_right() -> None:
    """Assumptions are tracked by reading the sentences; each verdict on them is checked."""
    for row in KnightsKnaves.rows(40, seed=9, people=(2, 6)):
        names, assumed = row["names"], list[tuple[str, bool]]()
        claims = {}
        for sentence in row["prompt"].split("people: ")[1].split(" Who is")[0].split(". ")[1:]:
            name, claim = CLAIM.fullmatch(sentence.rstrip(".") + ".").groups()
            claims[name] = claim

        def possible(assumed: list[tuple[str, bool]], speaker: str, claims=claims, names=names):
            """Whether the claim of a speaker can agree with its role, given what is assumed."""
            fixed = dict(assumed)
            free = [name for name in names if name not in fixed]
            for roles in itertools.product((True, False), repeat=len(free)):
                world = fixed | dict(zip(free, roles, strict=True))
                if holds(claims[speaker], world) == world[speaker]:
                    return True
            return False

        for step in row["solution"]:
            if found := re.fullmatch(r"Assume (\w+) is a (knight|knave)\. ", step):
                assumed.append((found[1], found[2] == "knight"))
            elif found := re.match(r"Contradiction: the claim of (\w+), a (knight|knave),", step):
                assert (found[1], found[2] == "knight") in assumed
                assert not possible(assumed, found[1])
                assumed.pop()
            elif found := re.fullmatch(r"So (\w+) can be neither, and (\w+) is no (\w+)\.\n", step):
                assert assumed.pop() == (found[2], found[3] == "knight")
            elif step == "No contradiction is found.\n":
                assert all(possible(assumed, name) for name, _ in assumed)
            else:
                break
        assert dict(assumed) == dict(zip(names, row["truth"], strict=True))


def test_renamed_and_reordered_puzzles_are_the_same() -> None:
    first = [
        Claim("is", 1, False),
        Claim("and", parts=(Claim("is", 0), Claim("is", 2, False))),
        Claim("if", parts=(Claim("is", 0), Claim("is", 1))),
    ]
    moved = {0: 2, 1: 0, 2: 1}

    def move(claim: Claim) -> Claim:
        parts = tuple(move(part) for part in claim.parts)
        return claim._replace(person=moved[claim.person], parts=parts)

    other = [Claim("is")] * 3
    for who, claim in enumerate(first):
        other[moved[who]] = move(claim)
    swapped = [first[0], first[1]._replace(parts=first[1].parts[::-1]), first[2]]
    turned = [*first[:2], first[2]._replace(parts=first[2].parts[::-1])]
    assert content(first) == content(other)
    assert content(first) == content(swapped)
    assert content(first) != content(turned)


def test_one_problem_in_ten_is_for_testing() -> None:
    shares = [rows.split_of(str(i)) == "test" for i in range(5000)]
    assert 0.08 < sum(shares) / 5000 < 0.12


def test_wrong_options_of_knights_and_knaves() -> None:
    with pytest.raises(ValueError, match="people: needs 2 <= from <= to <= 8, got"):
        KnightsKnaves.rows(1, people=(2, 9))
    with pytest.raises(ValueError, match="kinds"):
        KnightsKnaves.rows(1, claims=["xor"])  # type: ignore[list-item]


def test_a_short_puzzle() -> None:
    row = next(iter(KnightsKnaves.rows(1, people=(3, 3), template="short")))
    assert [line.split(":")[0] for line in row["prompt"].splitlines()] == row["names"]


# Sentences.


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It costs 3.14. Then 2.", ["It costs 3.14. ", "Then 2."]),
        ("Take a prime, e.g. Two. So", ["Take a prime, e.g. Two. ", "So"]),
        (
            "Let $a = 1. B$ be. So \\[x. Y\\] ends. Ok",
            ["Let $a = 1. B$ be. ", "So \\[x. Y\\] ends. ", "Ok"],
        ),
        ("$$a.\n\nB$$ Then\nnext", ["$$a.\n\nB$$ Then\n", "next"]),
        ("a\n\n  \nb\n", ["a\n\n  \n", "b\n"]),
        ("It is $5. Then $7 more. Done!  Yes", ["It is $5. ", "Then $7 more. ", "Done!  ", "Yes"]),
        ("Dr. Who saw J. Smith. 1. First", ["Dr. Who saw J. Smith. ", "1. First"]),
        ('He said "no." Then left', ['He said "no." ', "Then left"]),
        ("\\begin{align}a. B\nc\\end{align}\nEnd", ["\\begin{align}a. B\nc\\end{align}\n", "End"]),
        ("", []),
        (" \n ", []),
    ],
)
def test_sentences(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected


@given(st.text(alphabet="aB1. !?\n$\\[]()\t", max_size=60))
def test_sentences_joined_are_the_text(text: str) -> None:
    found = sentences(text)
    assert "".join(found) == (text if text.strip() else "")
    assert all(sentence.strip() for sentence in found)


SAMPLE = {
    "question": "How many?",
    "answer": "She sells 16 - 3 - 4 = <<16-3-4=9>>9 eggs.\n"
    "That is 9 * 200 = $<<9*200=1800>>1,800.\n#### 1,800",
}


def test_gsm8k_rows() -> None:
    (row,) = GSM8K.rows([SAMPLE])
    assert row["solution"] == ["She sells 16 - 3 - 4 = 9 eggs.\n", "That is 9 * 200 = $1,800."]
    assert row["answer"] == "1800"
    assert row["completion"].endswith("$1,800. </think>\n<answer> 1800 </answer>")
    assert "User: How many? Show your work" in row["prompt"]
    assert "for example <answer> 12 </answer>" in row["prompt"]
    (kept,) = GSM8K.rows([SAMPLE], calculations="keep", template="short")
    assert kept["solution"][0] == "She sells 16 - 3 - 4 = <<16-3-4=9>>9 eggs.\n"
    assert kept["prompt"] == "How many?\n"
    with pytest.raises(ValueError, match=r"gsm8k row 2: `answer` does not end in a line '#### ..'"):
        list(GSM8K.rows([SAMPLE, {"question": "a", "answer": "5"}]))
    with pytest.raises(
        ValueError, match="row 1: needs `question` and `answer`, two texts; got 'q'"
    ):
        list(GSM8K.rows([{"q": 1}]))


def test_math_rows() -> None:
    solution = "First $x = 2$. Then $x^2 = 4$, so\nthe answer is $\\boxed{\\frac{1}{4}}$."
    (row,) = Math.rows([{"problem": "What is {x}?", "solution": solution}])
    assert row["answer"] == "\\frac{1}{4}"
    assert "".join(row["solution"]) == solution
    assert len(row["solution"]) == 3
    assert "User: What is {x}? Show" in row["prompt"]
    with pytest.raises(ValueError, match="math row 1: `solution` has no"):
        list(Math.rows([{"problem": "a", "solution": "5"}]))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"\boxed{1} and \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"$\boxed 5$.", "5"),
        (r"\fbox{7}", "7"),
        (r"\boxed{7", None),
        ("7", None),
    ],
)
def test_boxed(text: str, expected: str | None) -> None:
    assert boxed(text) == expected


@pytest.mark.real_data
def test_all_of_gsm8k_is_read() -> None:
    file = REAL_DATA / "gsm8k.train.jsonl.gz"
    if not file.exists():
        pytest.skip("no real data")
    with gzip.open(file, "rt") as lines:
        rows = [json.loads(line) for line in lines]
    made = list(GSM8K.rows(rows))
    assert len(made) == len(rows) == 3000
    for row, problem in zip(rows, made, strict=True):
        assert not re.search("<<|####", problem["completion"])
        assert float(problem["answer"]) == float(row["answer"].split("####")[1].replace(",", ""))
        assert len(problem["solution"]) >= row["answer"].count("\n") - row["answer"].count("\n\n")


# The command line.


def invoke(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["problems", *arguments])
    return result.exit_code, " ".join(result.output.split())


def test_the_command_writes_whole_files(tmp_path: Path) -> None:
    out = tmp_path / "new" / "c.jsonl"
    code, said = invoke(
        "countdown", "--count", "7", "--numbers", "3", "--seed", "0", "--out", str(out)
    )
    assert (code, "7 problems" in said) == (0, True), said
    made = [json.loads(line) for line in out.read_text().splitlines()]
    assert made == list(Countdown.rows(7, numbers=(3, 3)))
    packed = [tmp_path / "k1.jsonl.gz", tmp_path / "k2.jsonl.gz"]
    for file in packed:
        code, said = invoke(
            "knights-knaves", "--count", "4", "--people", "2-3", "--claims", "is,and,or", "--split",
            "test", "--out", str(file),
        )  # fmt: skip
        assert code == 0, said
    assert packed[0].read_bytes() == packed[1].read_bytes()
    with gzip.open(packed[0], "rt") as lines:
        assert [json.loads(line) for line in lines] == list(
            KnightsKnaves.rows(4, people=(2, 3), claims=["is", "and", "or"], split="test")
        )


def test_the_command_converts(tmp_path: Path) -> None:
    data, out = tmp_path / "g.jsonl", tmp_path / "out.jsonl"
    data.write_text(json.dumps(SAMPLE) + "\n")
    assert invoke("gsm8k", str(data), "--out", str(out), "--calculations", "keep")[0] == 0
    assert [json.loads(out.read_text())] == list(GSM8K.rows([SAMPLE], calculations="keep"))
    row = {"problem": "p", "solution": "It is $\\boxed{3}$."}
    data.write_text(json.dumps(row) + "\n")
    assert invoke("math", str(data), "--out", str(out), "--template", "short", "--force")[0] == 0
    assert [json.loads(out.read_text())] == list(Math.rows([row], template="short"))


def test_what_is_advised_for_a_table_reads_it_as_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`onestage check` prints a command for problems of others; it ran into the table's own letters."""
    monkeypatch.chdir(tmp_path)
    table = 'question;answer\n"How many cafés are 2 and 1?";"2 and 1 are 3.\n#### 3"\n'
    Path("g.csv").write_text(table, encoding="cp1252")
    stream = Stream("g", path="g.csv", encoding="cp1252", delimiter=";")
    command = advice(stream)[0].partition("read after: ")[2]
    code, said = invoke(*shlex.split(command)[2:])
    assert code == 0, said
    (made,) = map(json.loads, Path("g.problems.jsonl").read_text().splitlines())
    assert (made["answer"], "cafés" in made["prompt"]) == ("3", True)
    assert (
        "no encoding 'utf-99'"
        in invoke("gsm8k", "g.csv", "--encoding", "utf-99", "--out", "x.jsonl")[1]
    )


def test_a_failed_command_leaves_no_file(tmp_path: Path) -> None:
    out = tmp_path / "c.jsonl"
    code, said = invoke("countdown", "--out", str(out), "--given", "1-2", "--target", "1-3")
    assert code == 1
    assert "different problems found" in said
    assert list(tmp_path.iterdir()) == []
    assert invoke("countdown", "--out", str(out), "--numbers", "x")[1] == (
        "error: --numbers 'x': expected a number, or two as in 3-4"
    )
    assert "allowed are files .jsonl" in invoke("countdown", "--out", str(tmp_path / "c.txt"))[1]


STRANGER = '''
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from onestage.rollout.rewards._checker import Checker


@dataclass(frozen=True)
class Parity(Checker):
    def judge(self, answer):
        return float(answer.completion == answer.facts["answer"])

    @classmethod
    def rows(
        cls,
        count: int,
        seed: int = 0,
        between: Annotated[tuple[int, int], "Smallest and largest."] = (0, 9),
        words: Sequence[str] = ("even", "odd"),
    ) -> Iterator[dict[str, Any]]:
        """Is a number even or odd?"""
        for n in range(between[0], between[0] + count):
            yield {"prompt": f"{n}?", "answer": words[n % 2], "seed": seed}
'''


def test_a_strangers_checker_has_a_command(tmp_path: Path) -> None:
    file, out = tmp_path / "parity.py", tmp_path / "out.jsonl"
    file.write_text(STRANGER)
    given = ["--between", "3-5", "--words", "gerade, ungerade", "--seed", "7", "--out", str(out)]
    code, said = invoke(f"{file}:Parity", "--count", "2", *given)
    assert code == 0, said
    assert [json.loads(line) for line in out.read_text().splitlines()] == [
        {"prompt": "3?", "answer": "ungerade", "seed": 7},
        {"prompt": "4?", "answer": "gerade", "seed": 7},
    ]
    code, said = invoke(f"{file}:Parity", "--help")
    assert code == 0
    for told in ("Is a number even or odd?", "Smallest and largest.", "[default: 0-9]", "even,odd"):
        assert told in said
    assert "Missing option '--count'" in invoke(str(file), *given)[1]


def test_commands_are_the_checkers_that_make_problems() -> None:
    code, said = invoke("--help")
    assert code == 0
    for name in ("countdown", "gsm8k", "knights-knaves", "math"):
        assert f" {name} " in said
    code, said = invoke("match", "--out", "x.jsonl")
    assert code == 1
    assert "reward match makes no problems; countdown, gsm8k, knights_knaves, math do" in said
    assert "unknown reward 'cuntdown'; did you mean 'countdown'?" in invoke("cuntdown")[1]
