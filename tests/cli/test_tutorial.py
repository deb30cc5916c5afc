"""docs/tutorial.ipynb: it runs, and its committed outputs are those of a run."""

import json
import os
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/tutorial.ipynb"
SMALLER = {"--total-timesteps 240_000": "--total-timesteps 48_000", "--episodes 30": "--episodes 2"}


def test_the_committed_tutorial_was_executed():
    """From top to bottom, without an error, small enough for a page; its links exist."""
    text = PAGE.read_text("utf-8")
    cells = json.loads(text)["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert not [out for cell in code for out in cell["outputs"] if out["output_type"] == "error"]
    assert len(text) < 2_000_000
    prose = "".join(line for cell in cells if cell["cell_type"] == "markdown" for line in cell["source"])
    links = re.findall(r"\]\((?!https?:)([^)#]+)", prose)
    assert links and [link for link in links if not (PAGE.parent / link).exists()] == []


@pytest.mark.slow
def test_the_tutorial_runs(tmp_path, monkeypatch):
    """In an empty folder, with short trainings."""
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    notebook = nbformat.read(PAGE, 4)
    for given, small in SMALLER.items():
        (cell,) = (cell for cell in notebook.cells if given in cell.source)
        cell.source = cell.source.replace(given, small)
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    client = nbclient.NotebookClient(notebook, timeout=1800, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    shown = [out for cell in notebook.cells for out in cell.get("outputs", []) if out["output_type"] != "stream"]
    kinds = {kind for out in shown for kind in out["data"]}
    assert {"image/png", "text/html", "text/markdown"} <= kinds
    assert "CONFIRMED" in str(shown[-1]) or "REFUTED" in str(shown[-1]) or "INCONCLUSIVE" in str(shown[-1])
