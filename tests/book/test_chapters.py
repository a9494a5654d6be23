"""The form of every chapter: no chapter may fall below the standard that CONTRIBUTING.md states.

That a chapter's cells run, and that its assertions hold, is tested by executing it (``pytest --nbmake``).
"""

import ast
import re
from functools import cache
from pathlib import Path

import nbformat
import pytest
import yaml

ROOT = Path(__file__).parents[2]
PARTS = ("brain", "mlp", "distributed", "federated", "outlook")
CHAPTERS = sorted(path for part in PARTS for path in (ROOT / "book" / part).glob("*.ipynb"))
every_chapter = pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)


@cache
def read(path):
    return nbformat.read(path, 4)


def text(path):
    return "\n\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")


def code_cells(path):
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def is_check(cell):
    return cell.source.startswith("# Check")


def solution_cells(path):
    """Return the code cells between a solution's start and its end."""
    inside, found = False, []
    for cell in read(path).cells:
        if cell.cell_type == "markdown":
            inside = "{solution-start}" in cell.source or (inside and "{solution-end}" not in cell.source)
        elif inside:
            found.append(cell)
    return found


def prose(path):
    """Return the words of a chapter, without mathematics, directives, roles and code."""
    source = re.sub(r"\$\$.*?\$\$|\$[^$]*\$|\{[^}]*\}|`[^`]*`", " ", text(path), flags=re.DOTALL)
    return source.split()


def exercises(path):
    """Return the labels of exercises, and those that solutions are for."""
    asked = re.findall(r"\{exercise(?:-start)?\}.*?\n:label: (\S+)", text(path))
    solved = re.findall(r"\{solution(?:-start)?\} (\S+)", text(path))
    return asked, solved


def test_there_are_chapters_and_each_is_in_the_table_of_contents():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    listed = [chapter["file"] for part in toc["parts"] for chapter in part["chapters"]]
    assert len(CHAPTERS) >= 4
    assert sorted(p for p in listed if "/appendix/" not in p) == [
        path.relative_to(ROOT).with_suffix("").as_posix() for path in sorted(CHAPTERS)
    ]


@every_chapter
def test_a_chapter_opens_with_why_and_a_box(path):
    first = read(path).cells[0].source
    assert re.match(r"# \S", first)
    assert len(first.split("```")[0].split()) > 40, "one paragraph that says why comes before the box"
    for heading in ("**You will learn**", "**You need**", "**Runs in**"):
        assert heading in first
    assert int(re.search(r"\*\*Runs in\*\* about (\d+) seconds", first)[1]) <= 30


@every_chapter
def test_a_chapter_ends_with_summary_exercises_and_reading(path):
    headings = re.findall(r"^## (.+)$", text(path), re.MULTILINE)
    assert headings[-3:] == ["Summary", "Exercises", "Further reading"]
    reading = text(path).split("## Further reading")[1]
    assert len(re.findall(r"^- .*\{cite:t\}", reading, re.MULTILINE)) >= 3
    summary = text(path).split("## Summary")[1].split("## Exercises")[0]
    assert 3 <= len(re.findall(r"[.!?](?:\s|$)", summary)) <= 9


@every_chapter
def test_every_exercise_has_a_solution_and_there_are_five(path):
    asked, solved = exercises(path)
    assert len(asked) == len(set(asked)) >= 5
    assert asked == solved, "exercises and solutions stand in the same order"
    blocks = re.findall(r"\{solution(?:-start)?\} \S+\n(.*?)\n", text(path))
    assert blocks == [":class: dropdown"] * len(asked)
    assert text(path).count("{solution-start}") == text(path).count("{solution-end}")
    assert text(path).count("{exercise-start}") == text(path).count("{exercise-end}")


@every_chapter
def test_length_of_prose_and_of_cells(path):
    assert 1800 <= len(prose(path)) <= 3300
    solutions = {cell.id for cell in solution_cells(path)}
    shown = [cell for cell in code_cells(path) if not is_check(cell) and cell.id not in solutions]
    assert 10 <= len(shown) <= 22
    for cell in code_cells(path)[1:]:  # the first has the imports
        lines = [line for line in cell.source.splitlines() if line.strip()]
        assert is_check(cell) or len(lines) <= 20, cell.source


@every_chapter
def test_every_figure_has_alternative_text(path):
    figures = [cell for cell in code_cells(path) if "plt.show()" in cell.source]
    assert 4 <= len(figures) <= 8
    for cell in code_cells(path):
        if "plt." in cell.source:
            assert cell in figures, "a figure is shown by the cell that draws it"
            alt = cell.metadata["mystnb"]["image"]["alt"]
            assert len(alt.split()) >= 20, f"say what is to be seen: {alt}"
    for image in re.findall(r"!\[(.*?)\]|:::?\{figure\}.*?\n:alt: (.*)", text(path)):
        assert any(image)


@every_chapter
def test_claims_are_asserted_in_folded_checks(path):
    checks = [cell for cell in code_cells(path) if is_check(cell)]
    assert len(checks) >= 4
    for cell in checks:
        assert "hide-input" in cell.metadata["tags"]
        assert any(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(cell.source)))
    for cell in solution_cells(path):
        assert "assert" in cell.source, f"a solution that computes says what it found: {cell.source}"


@every_chapter
def test_randomness_is_seeded(path):
    for cell in code_cells(path):
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "np.random":
                assert node.attr in ("default_rng", "Generator"), "only generators, passed or seeded"
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("default_rng"):
                assert node.args, "default_rng() without a seed differs from run to run"
    assert not re.search(
        r"perf_counter|time\.time\(|datetime\.now", "".join(c.source for c in code_cells(path))
    )


@every_chapter
def test_a_notebook_is_stored_stripped_and_limits_its_time(path):
    notebook = read(path)
    assert all(cell.execution_count is None and not cell.outputs for cell in code_cells(path))
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
    assert notebook.metadata["kernelspec"]["name"] == "python3"
    assert notebook.metadata["execution"]["timeout"] <= 120


@every_chapter
def test_nothing_is_fetched_or_left_behind(path):
    code = "\n".join(cell.source for cell in code_cells(path))
    assert not re.search(r"https?://|urlopen|requests\.|fetch_openml|savefig|open\(.*['\"]w", code)


@every_chapter
def test_every_numbered_equation_is_held_by_a_test(path):
    labels = re.findall(r"\$\$ \((eq-[a-z0-9-]+)\)", text(path))
    assert len(labels) == len(set(labels)) >= 3
    tests = "\n".join(p.read_text(encoding="utf-8") for p in (ROOT / "tests" / path.parent.name).glob("*.py"))
    missing = [label for label in labels if not re.search(rf"\b{label}\b(?!-)", tests)]
    assert not missing, f"cite these in the docstring of a test in tests/{path.parent.name}"
    for label in set(re.findall(r"\{eq\}`(.*?)`", text(path))):
        assert any(label in text(chapter) for chapter in CHAPTERS)


@every_chapter
def test_every_citation_is_in_the_bibliography(path):
    keys = set(re.findall(r"^@\w+\{(\S+),", (ROOT / "book/references.bib").read_text(encoding="utf-8"), re.M))
    cited = {
        key.strip()
        for group in re.findall(r"\{cite(?::\w+)?\}`(.*?)`", text(path))
        for key in group.split(",")
    }
    assert cited
    assert cited <= keys


@every_chapter
def test_another_part_is_mentioned_in_the_margin(path):
    assert "```{margin}" in text(path)


def test_symbols_of_numbered_equations_are_on_the_notation_page():
    """Each Greek letter and each capital that a numbered equation uses stands in a row of a table."""
    notation = (ROOT / "book/appendix/notation.md").read_text(encoding="utf-8")
    table = " ".join(line.split("|")[1] for line in notation.splitlines() if line.startswith("| $"))
    for path in CHAPTERS:
        for equation in re.findall(r"\$\$([^$]*)\$\$ \(eq-", text(path)):
            plain = re.sub(r"\\(?:text|operatorname|begin|end)\{.*?\}", " ", equation)
            for symbol in set(
                re.findall(r"\\(?:alpha|beta|delta|Delta|eta|lambda|tau|theta|varepsilon)\b", plain)
            ):
                assert symbol in table, f"{symbol} of {path.stem}"
            for letter in set(re.findall(r"(?<![\\A-Za-z])[A-Z](?![A-Za-z])", plain)):
                assert re.search(rf"(?<![\\A-Za-z]){letter}(?![A-Za-z])", table), f"{letter} of {path.stem}"


def test_files_are_short_enough_to_read_in_one_sitting():
    for folder in ("nnbrain", "tests", "benchmarks", "book/_ext"):
        for path in (ROOT / folder).rglob("*.py"):
            assert len(path.read_text(encoding="utf-8").splitlines()) <= 320, path
