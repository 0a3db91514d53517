"""The prose pages: their code runs, and the numbers typed into them are the library's."""

import ast
import inspect
import re
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
import torch
from pybtex.database import parse_file
from torch.utils.checkpoint import checkpoint

from gomhc import MIXERS, HyperConnection, make_mixer
from gomhc.companion.published import FIGURE_8_STEPS
from gomhc.companion.released import released_problem, released_settings
from gomhc.companion.studies import stream_mixing as studies
from gomhc.spectra import karpelevich, perfect_mirsky
from gomhc.stream_mixing import corrected_problem, fit, steps_to

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT / "book").glob("*.md"))
CODE = [ROOT / "book" / f"{name}.md" for name in ("tour", "faq", "use-it", "recipes")]
CODE.append(ROOT / "README.md")
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def text(name: str) -> str:
    return (ROOT / "book" / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("page", CODE, ids=lambda page: page.name)
def test_the_code_on_the_page_runs(page):
    source = page.read_text(encoding="utf-8")
    blocks = list(BLOCK.finditer(source))
    assert blocks, f"expected code on {page.name}"
    namespace: dict[str, object] = {"__name__": page.stem}
    for block in blocks:
        above = source[: block.start(1)].count("\n")  # so that a failure names the page's line
        exec(compile("\n" * above + block[1], str(page), "exec"), namespace)


def test_watching_disturbs_no_checkpointed_training():
    (block,) = (b[1] for b in BLOCK.finditer(text("recipes.md")) if "def watch(" in b[1])
    kept = [
        part
        for part in ast.parse(block).body
        if isinstance(part, (ast.ImportFrom, ast.FunctionDef))
    ]
    namespace: dict[str, Any] = {"torch": torch, "nn": torch.nn}
    exec(compile(ast.Module(kept, []), "recipes.md", "exec"), namespace)
    branch = torch.nn.Linear(8, 8)
    connection = HyperConnection(8, branch, make_mixer("go-mhc", 4))
    X = torch.randn(5, 4, 8)

    def loss():
        return checkpoint(connection, X, use_reentrant=False).square().sum()

    numbers = namespace["watch"](torch.nn.ModuleList([connection]), loss)
    assert numbers["0"][2] > 0


# Chapters: question, answer, and exercises with solutions.

CHAPTERS = sorted((ROOT / "notebooks").glob("*.ipynb"))
EXERCISE = re.compile(
    r"^\*\*Exercise (\d)\*\* \((easy|medium|hard)\)\.[^\n](?:(?!<details>).)*?\n\n"
    r"<details>\n<summary>Solution</summary>\n\n(.*?)\n\n</details>",
    re.MULTILINE | re.DOTALL,
)


def cells(chapter):
    return nbformat.read(chapter, as_version=4).cells


def exercises(chapter):
    """(number, solution) of every exercise, out of the one cell that has them."""
    (cell,) = (c.source for c in cells(chapter) if c.source.startswith("## Exercises"))
    assert len(EXERCISE.findall(cell)) == cell.count("**Exercise ")
    return [(int(number), solution) for number, _, solution in EXERCISE.findall(cell)]


SOLUTIONS = [
    pytest.param(solution, id=f"{chapter.stem[:2]}-{number}")
    for chapter in CHAPTERS
    for number, solution in exercises(chapter)
    if "```python" in solution
]


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.stem)
def test_a_chapter_opens_with_question_and_answer_and_closes_with_exercises(chapter):
    first, *others = cells(chapter)
    assert first.source.split("\n")[2].startswith("> **Question.** ")
    answers = [first.source, *(c.source for c in others if c.id.startswith("answer"))]
    assert sum("> **Answer.** " in source for source in answers) == 1
    numbers = [number for number, _ in exercises(chapter)]
    assert 3 <= len(numbers) <= 5
    assert numbers == list(range(1, len(numbers) + 1))
    assert others[-1].source.startswith("## Exercises")


@pytest.mark.parametrize("solution", SOLUTIONS)
def test_the_code_of_a_solution_runs(solution):
    blocks = [block[1] for block in BLOCK.finditer(solution)]
    assert len(blocks) == solution.count("```") / 2
    assert any("assert " in block for block in blocks)
    namespace: dict[str, object] = {"__name__": "solution"}
    for block in blocks:
        exec(compile(block, "solution", "exec"), namespace)


def test_no_code_escapes_the_test():
    for page in CODE:
        fences = re.findall(
            r"^[ \t]*[`:~]{3,}[ \t]*(\S.*)$", page.read_text(encoding="utf-8"), re.M
        )
        assert [fence for fence in fences if "py" in fence and fence != "python"] == []


PROSE = [page.read_text(encoding="utf-8") for page in PAGES]
PROSE += [c.source for chapter in CHAPTERS for c in cells(chapter) if c.cell_type == "markdown"]


def test_chapters_are_mentioned_by_links():
    bare = [
        re.findall(r"[^\[\n]{0,20}(?<!\[)[cC]hapters? \d[^\n]{0,20}", source) for source in PROSE
    ]
    assert [mention for mentions in bare for mention in mentions] == []


def test_the_list_of_records_has_a_line_for_every_size_of_model():
    """Those of letters-large once stood there as more of letters, and not made yet."""
    chapter = CHAPTERS[-1]
    setup, cell = (c.source for c in cells(chapter) if "is_current" in c.source)
    namespace: dict[str, Any] = {"profile": "smoke", "seed": 0, "device": "cpu"}
    setup = "\n".join(line for line in setup.split("\n") if line[:1] != "%")
    exec(setup, namespace)
    exec(cell, namespace)
    titles = [line.partition(":")[0] for line in namespace["lines"]]
    kinds = [title.partition("`")[2] for title in titles]
    assert len(set(kinds)) == len(kinds)
    assert {"lm/letters-…`", "lm/letters-large-…`"} <= set(kinds)


# Sources.


def test_every_citation_has_its_entry():
    known = set(parse_file(ROOT / "book" / "references.bib").entries)
    places = [*PAGES, *(ROOT / "notebooks").glob("*.ipynb")]
    cited = {
        key.strip()
        for place in places
        for keys in re.findall(r"\{cite(?::\w+)?\}`([^`]+)`", place.read_text(encoding="utf-8"))
        for key in keys.split(",")
    }
    assert cited
    assert cited - known == set()


def test_every_preprint_the_library_names_is_in_the_references():
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "gomhc").rglob("*.py")]
    named = {number for source in sources for number in re.findall(r"\d{4}\.\d{5}", source)}
    assert named
    assert [number for number in sorted(named) if number not in text("references.bib")] == []


def test_every_term_used_is_in_the_glossary():
    terms = set(re.findall(r"^(\S.*)\n  \S", text("glossary.md"), re.MULTILINE))
    used = {
        re.sub(r".*<(.*)>", r"\1", term, flags=re.DOTALL)
        for source in PROSE
        for term in re.findall(r"\{term\}`([^`]+)`", source)
    }
    assert {term for term in used if term.lower() not in {t.lower() for t in terms}} == set()


# Numbers.


def off_diagonal_mass(mixer, theta):
    return 1 - mixer(theta.double()).diagonal().mean().item()


def authors_start(name, d):
    """Logit 0 for the identity, −8 for all else; None where the authors allow no such d."""
    if name == "mhc":
        theta = torch.full((d, d), -8.0).fill_diagonal_(0).flatten()
    elif name == "mhc-lite":
        theta = torch.full((make_mixer(name, d).num_parameters,), -8.0)
        theta[0] = 0
    elif d & (d - 1):
        return None
    else:
        theta = torch.tensor([0.0, -8.0]).repeat(d.bit_length() - 1)
    return off_diagonal_mass(make_mixer(name, d), theta)


@pytest.mark.parametrize(
    ("row", "name"), [("mHC", "mhc"), ("mHC-lite", "mhc-lite"), ("KromHC, 2×2 factors", "kromhc")]
)
def test_masses_at_the_authors_start(row, name):
    line = next(line for line in text("ambiguity-log.md").splitlines() if f"| {row} |" in line)
    typed = [cell.strip() for cell in line.strip().strip("|").split("|")[1:]]
    sizes = map(int, re.findall(r"d = (\d)", text("ambiguity-log.md").split("logits 0 and −8")[1]))
    for cell, d in zip(typed, list(sizes)[: len(typed)], strict=True):
        mass = authors_start(name, d)
        if mass is None:
            assert cell == "–"
        else:
            figures = len(cell.replace("0.", "", 1).lstrip("0"))
            assert float(cell) == float(f"{mass:.{figures}g}"), (row, d, mass)
            assert figures >= 2


def test_our_start_has_the_mass_that_the_page_gives(generator):
    assert r"$\mu = 0.01$" in text("ambiguity-log.md")
    assert r"$\mu = 0.01$" in text("glossary.md")
    for name in set(MIXERS) - {"identity", "go-mhc", "kron-go", "orthogonal"}:
        mixer = make_mixer(name, 4)
        assert off_diagonal_mass(mixer, mixer.initial_theta()) == pytest.approx(0.01, rel=1e-5)
    go = make_mixer("go-mhc", 4, s=2)
    draws = [off_diagonal_mass(go, go.initial_theta(generator)) for _ in range(500)]
    assert sum(draws) / len(draws) == pytest.approx(0.01, rel=0.05)


def test_rows_of_the_truncated_iteration_are_exact_and_columns_are_not(generator):
    B = make_mixer("mhc", 4)(3 * torch.randn(200, 16, generator=generator, dtype=torch.float64))
    assert (B.sum(-1) - 1).abs().max() < 1e-12
    assert (B.sum(-2) - 1).abs().max() > 1e-3


def test_factors_of_kron_go():
    for product in re.findall(r"\$(\d+ = \d+ \\cdot \d+)\$", text("ambiguity-log.md")):
        d, *factors = map(int, re.findall(r"\d+", product))
        assert [factor.d for factor in make_mixer("kron-go", d).factors] == factors


def test_generator_sizes_on_the_page_of_use():
    sizes = [make_mixer("go-mhc", 4, s=s).num_parameters for s in (1, 2, 3, 4)]
    assert "{}, {}, {} and {} for".format(*sizes) in text("use-it.md")


def test_from_which_d_on_a_product_has_the_shorter_theta():
    page = " ".join(text("which-mixer.md").split())
    assert "from $d=9$ on `kron-go` (unless $d$ is a prime or twice one)" in page
    for d in (d for d in range(4, 65) if any(d % k == 0 for k in range(2, d))):
        twice_a_prime = d % 2 == 0 and all((d // 2) % k for k in range(2, d // 2))
        shorter = make_mixer("kron-go", d).num_parameters < d * (d - 1) / 2
        assert shorter == (d >= 9 and not twice_a_prime), d


def test_where_float32_loses_orthogonality(generator):
    assert r"beyond $10^6$ in float32" in text("use-it.md")
    go = make_mixer("go-mhc", 5, s=1)
    theta = 2 * torch.rand(200, go.num_parameters, generator=generator) - 1
    assert go(1e6 * theta).isfinite().all()
    assert go(1e8 * theta).isnan().any()


def test_released_settings_on_the_page():
    assert "twice the\n  released learning rate" in text("ambiguity-log.md")
    assert text("ambiguity-log.md").count(r"$64 \cdot 10^{-6}$") == 1
    assert text("ambiguity-log.md").count(r"$\varepsilon = 64 \cdot 10^{-6}$") == 1
    go, mhc = (released_settings(make_mixer(name, 4)) for name in ("go-mhc", "mhc"))
    assert go["learning_rate"] == 2 * mhc["learning_rate"] == 2e-3
    assert go["epsilon"] == mhc["epsilon"] == pytest.approx(64e-6)
    assert r"$\varepsilon = 10^{-8}$" in text("ambiguity-log.md")
    assert inspect.signature(fit).parameters["epsilon"].default == 1e-8


def test_steps_on_the_mean_curve_and_problem_by_problem():
    page = " ".join(text("ambiguity-log.md").split())
    match = re.search(
        r"at \$d = 2\$ the figure shows (\d+) steps, .* gives (\d+) .*, and (\d+) as", page
    )
    read, together, apart = map(int, match.groups())
    assert read == FIGURE_8_STEPS["kromhc"][2]
    mixer = make_mixer("kromhc", 2)
    # The third draw, as KromHC is the third method there.
    loss = fit(released_problem(2, draw=2), mixer, seed=42, **released_settings(mixer)).loss
    mean = loss.mean(0)
    assert steps_to(mean, 1.05 * mean[-1]).item() == pytest.approx(together, rel=0.01)
    own = steps_to(loss, 1.05 * loss[:, -1])
    assert own.mean().item() == pytest.approx(apart, rel=0.01)


def test_pytorch_takes_no_axes_for_all_axes():
    x = torch.arange(24.0).reshape(2, 3, 4)
    assert x.mean(axis=()).shape == ()
    assert x.mean(axis=()) == x.mean()


def test_corrected_protocol_on_the_page():
    page = " ".join(text("ambiguity-log.md").split())
    assert r"$N(0, \sigma^2)$ with $\sigma = 0.1$" in page
    assert inspect.signature(corrected_problem).parameters["noise"].default == 0.1
    assert "near the identity with 1 % of" in page
    assert inspect.signature(studies.corrected).parameters["off_diagonal_mass"].default == 0.01
    assert "1.05 times the {term}`floor`" in page
    assert studies.WITHIN == 1.05


def test_which_methods_run_at_which_d():
    page = " ".join(text("ambiguity-log.md").split())
    units = {u.config["d"]: u.config for u in studies.UNITS if u.run is studies.released}
    assert "mHC and go-mHC with $s = 1$ at every $d$, and kron-go from $d = 4$ on" in page
    assert all({"mhc", "go-mhc s=1"} <= set(config["labels"]) for config in units.values())
    assert min(d for d, config in units.items() if "kron-go s=2" in config["labels"]) == 4
    assert "mHC-lite stops at $d = 6$" in page
    assert max(d for d, config in units.items() if "mhc-lite" in config["labels"]) == 6
    assert "At $d = 64$ there are 16 problems instead of 64" in page
    fewer = {d: config["problems"] for d, config in units.items() if "problems" in config}
    assert fewer == {64: 16}
    assert "the floor is not computed from $d = 32$ on" in page
    assert [d for d, config in units.items() if not config.get("floor", True)] == [32, 64]


def test_where_the_karpelevich_region_is_larger():
    assert "larger from $d = 4$ on" in text("glossary.md")
    angles = np.linspace(0, np.pi, 1001)
    for d in range(2, 9):
        excess = karpelevich(d).radius(angles) - perfect_mirsky(d).radius(angles)
        assert excess.min() > -1e-12
        assert (excess.max() > 0.01) == (d >= 4)
