"""Which notebooks re-execute after an edit to the package: those that import what was edited."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def dependencies():
    pytest.importorskip("jupyter_cache")
    spec = importlib.util.spec_from_file_location("dependencies", ROOT / "book/_ext/dependencies.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def names(files):
    return {path.relative_to(ROOT).as_posix() for path in files}


def test_imports_are_followed_through_the_package(dependencies):
    files = names(dependencies.package_files("from nnbrain.mlp import MLP"))
    assert {"nnbrain/mlp/network.py", "nnbrain/mlp/losses.py", "nnbrain/checks.py"} <= files
    assert not any("federated" in name or "brain/neurons" in name for name in files)


def test_a_module_named_in_any_way_counts(dependencies):
    for source in ("import nnbrain.data", "from nnbrain import data", "from nnbrain.data import load_digits"):
        assert "nnbrain/data.py" in names(dependencies.package_files(source))
    assert dependencies.package_files("import numpy") == set()


def test_magics_and_shell_lines_do_not_hide_imports(dependencies, tmp_path):
    import nbformat

    cells = [
        "%matplotlib inline\nif True:\n    %time x = 1",
        "files = !ls\nlen?",
        "from nnbrain.data import load_digits",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbformat.write(notebook, tmp_path / "magic.ipynb")
    assert "nnbrain/data.py" in names(
        dependencies.package_files(dependencies.code_of(tmp_path / "magic.ipynb"))
    )


def test_an_edit_changes_the_digest_of_dependent_notebooks_only(dependencies, tmp_path, monkeypatch):
    import shutil

    shutil.copytree(ROOT / "nnbrain", tmp_path / "nnbrain")
    monkeypatch.setattr(dependencies, "ROOT", tmp_path)
    chapters = [ROOT / f"book/{name}.ipynb" for name in ("brain/spiking-neuron", "mlp/backpropagation")]
    before = [dependencies.digest(chapter) for chapter in chapters]
    with (tmp_path / "nnbrain/brain/neurons.py").open("a") as file:
        file.write("# edited\n")
    after = [dependencies.digest(chapter) for chapter in chapters]
    assert after[0] != before[0]
    assert after[1] == before[1]
