"""The live page Play: its numbers are the library's, and its controls do what they say.

It needs no built book: the pages here are plain ones, with the script that the build would write.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
import torch
from playwright.sync_api import Browser, Page, expect

from book.tools.dress import live
from book.tools.modules import join
from book.tools.play_figure import first_matrix
from browser.conftest import Quiet, new_context, serving
from gomhc import (
    MIXERS,
    cayley,
    composite_gain,
    composites,
    make_mixer,
    skew_symmetric,
    smallest_singular_value,
)
from gomhc.adam import Adam
from gomhc.companion.figures import COLORS
from gomhc.spectra import perfect_mirsky

STATIC = Path(__file__).resolve().parents[1] / "book" / "static"
THEME = """
:root { --pst-color-background: #fff; }
html[data-theme="dark"] { --pst-color-text-base: #ced6dd; --pst-color-background: #14181e;
  background: #14181e; }"""
PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Play</title>
<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,">
<link rel="stylesheet" href="play.css"><style>{theme}</style></head>
<body><main><h1>Play</h1><figure id="fig-play"><img src="play.svg" alt="A still."></figure>
{place}</main>
<script src="play.js" defer></script></body></html>"""


def places() -> dict[str, str]:
    """Where the book has live views: file -> HTML."""
    of_pages = {
        page.name: match[0]
        for page in sorted(STATIC.parent.glob("*.md"))
        for match in re.finditer(
            r"<div [^>]*?data-play=.*?</div>", page.read_text("utf-8"), re.DOTALL
        )
    }
    of_notebooks = {
        path.name: live(cell.metadata["play"])
        for path in sorted((STATIC.parents[1] / "notebooks").glob("*.ipynb"))
        for cell in nbformat.read(path, as_version=4).cells
        if "play" in cell.metadata
    }
    return of_pages | of_notebooks


PLACES = places()
# Method, d, s, Sinkhorn's steps.
CASES = [
    (name, d, s, steps)
    for name in MIXERS
    for d in (2, 3, 4)
    for s in ((1, 2, 3, 4) if name in ("go-mhc", "kron-go") else (1,))
    for steps in ((1, 3, 20) if name == "mhc" else (20,))
    if not (name == "kromhc" and d == 3) and not (name == "kron-go" and d != 4)
]
SAMPLES = 200
CLOSE = 1e-9


@pytest.fixture(scope="session")
def site() -> Iterator[str]:
    """The address of the static files, and of a page with the joined script."""
    files = {
        "/empty.html": ("text/html", '<!doctype html><link rel="icon" href="data:,">'),
        "/play.js": ("text/javascript", join(STATIC / "play" / "main.js")),
    }
    for name, place in PLACES.items():
        files[f"/{name}.html"] = ("text/html", PAGE.format(theme=THEME, place=place))

    class Handler(Quiet):
        def do_GET(self) -> None:
            if self.path not in files:
                return super().do_GET()
            kind, text = files[self.path]
            self.send_response(200)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.end_headers()
            self.wfile.write(text.encode())

    with serving(Handler, STATIC) as address:
        yield address


@pytest.fixture(scope="session")
def modules(browser: Browser, site: str) -> Iterator[Page]:
    """An empty page to import modules into."""
    context = new_context(browser)
    page = context.new_page()
    page.goto(f"{site}empty.html")
    yield page
    context.close()


@pytest.fixture
def sample() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def call(page: Page, module: str, body: str, **given: Any) -> Any:
    """Run the body of a function that has the names of a module and what is given."""
    names = ", ".join(given)
    code = f"""async (given) => {{
      const {{ {names} }} = given;
      const m = await import("/play/{module}.js");
      {body}
    }}"""
    return page.evaluate(code, given)


def mixer_of(name: str, d: int, s: int, steps: int) -> Any:
    options = {"go-mhc": {"s": s}, "kron-go": {"s": s}, "mhc": {"iterations": steps}}
    return make_mixer(name, d, backend="reference", **options.get(name, {}))


def test_the_methods_are_the_librarys_in_its_colours(modules):
    methods = call(modules, "mixers", "return m.METHODS;")
    assert list(methods) == list(MIXERS)
    assert {name: method["color"] for name, method in methods.items()} == {
        name: COLORS[name] for name in MIXERS
    }
    for name, method in methods.items():
        for d in (2, 3, 4):
            try:
                make_mixer(name, d)
            except ValueError:
                assert d not in method["orders"]
            else:
                assert d in method["orders"]


@pytest.mark.parametrize(("name", "d", "s", "steps"), CASES)
def test_matrices_and_gradients_agree(modules, sample, name, d, s, steps, record_property):
    mixer = mixer_of(name, d, s, steps)
    theta = torch.randn(SAMPLES, mixer.num_parameters, generator=sample, dtype=torch.float64)
    theta *= torch.logspace(-2, 0.5, SAMPLES, dtype=torch.float64)[:, None]
    slope = torch.randn(SAMPLES, d, d, generator=sample, dtype=torch.float64)
    ours = call(
        modules,
        "mixers",
        """const mixer = m.makeMixer(name, { d, s, iterations: steps });
        return theta.map((row, k) => {
          const { value, pull } = mixer.mix(row);
          return { value, gradient: pull(slope[k]), size: mixer.size };
        });""",
        name=name,
        d=d,
        s=s,
        steps=steps,
        theta=theta.tolist(),
        slope=slope.tolist(),
    )
    assert {one["size"] for one in ours} == {mixer.num_parameters}
    theta.requires_grad_()
    value = mixer(theta)
    error = np.abs(np.array([one["value"] for one in ours]) - value.detach().numpy()).max()
    record_property("difference", (name, float(error)))
    assert error < CLOSE
    if mixer.num_parameters:
        (gradient,) = torch.autograd.grad((value * slope).sum(), theta)
        np.testing.assert_allclose(
            [one["gradient"] for one in ours], gradient.numpy(), rtol=1e-9, atol=CLOSE
        )


@pytest.mark.parametrize("name", [name for name in MIXERS if name not in ("go-mhc", "kron-go")])
def test_starts_are_the_librarys(modules, name):
    for d in (2, 4):
        start = call(
            modules,
            "mixers",
            "return m.makeMixer(name, { d, s: 2, iterations: 20 }).start(() => 0);",
            name=name,
            d=d,
        )
        theirs = make_mixer(name, d).initial_theta()
        np.testing.assert_allclose(start, theirs.numpy(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("name", "d"), [("go-mhc", 3), ("go-mhc", 4), ("kron-go", 4)])
def test_random_starts_have_the_librarys_mass(modules, name, d):
    starts = call(
        modules,
        "mixers",
        """const { normals } = await import("/play/random.js");
        const normal = normals(1);
        const mixer = m.makeMixer(name, { d, s: 2 });
        return Array.from({ length: 500 }, () => mixer.start(normal));""",
        name=name,
        d=d,
    )
    H = make_mixer(name, d, s=2)(torch.tensor(starts, dtype=torch.float64))
    mass = 1 - H.diagonal(dim1=-2, dim2=-1).mean()
    assert mass.item() == pytest.approx(0.01, rel=0.06)


@pytest.mark.parametrize("d", [2, 3, 4])
def test_stacks_agree(modules, sample, d):
    H = torch.randn(SAMPLES, 12, d, d, generator=sample, dtype=torch.float64) / d
    ours = call(
        modules,
        "stack",
        """return layers.map((stack) => {
          const products = m.composites(stack);
          return { products, gains: products.map(m.gains) };
        });""",
        layers=H.tolist(),
    )
    products = composites(H)
    np.testing.assert_allclose([one["products"] for one in ours], products.numpy(), atol=CLOSE)
    gain = composite_gain(products)
    theirs = {
        "forward": gain.forward,
        "backward": gain.backward,
        "smallest": smallest_singular_value(products),
    }
    for key, values in theirs.items():
        mine = [[layer[key] for layer in one["gains"]] for one in ours]
        np.testing.assert_allclose(mine, values.numpy(), atol=CLOSE)


@pytest.mark.parametrize("name", ["hc", "go-mhc", "orthogonal"])
@pytest.mark.parametrize("d", [2, 3, 4])
def test_eigenvalues_agree(modules, sample, name, d):
    mixer = mixer_of(name, d, 2, 20)
    H = mixer(torch.randn(SAMPLES, mixer.num_parameters, generator=sample, dtype=torch.float64))
    ours = call(modules, "spectrum", "return matrices.map(m.eigenvalues);", matrices=H.tolist())
    values = np.array(ours) @ [1, 1j]
    theirs = np.linalg.eigvals(H.numpy())
    # Each has one of the others' beside it; as sets, since equal real parts have no order.
    apart = np.abs(values[:, :, None] - theirs[:, None, :])
    assert max(apart.min(1).max(), apart.min(2).max()) < CLOSE


@pytest.mark.parametrize("d", [2, 3, 4])
def test_equal_eigenvalues_are_no_trouble(modules, d):
    ones = call(
        modules,
        "spectrum",
        """const { identity, plus } = await import("/play/matrix.js");
        const I = identity(d);
        const J = I.map((row) => row.map(() => 1 / d));
        return [I, J, plus(I, J)].map(m.eigenvalues);""",
        d=d,
    )
    for values, expected in zip(
        ones, ([1] * d, [0] * (d - 1) + [1], [1] * (d - 1) + [2]), strict=True
    ):
        real = np.sort(np.array(values)[:, 0])
        # A root of order k is known to the k-th root of rounding.
        np.testing.assert_allclose(real, expected, atol=1e-4)


@pytest.mark.parametrize("d", [2, 3, 4])
def test_place_is_the_projection(modules, sample, d):
    H = torch.randn(SAMPLES, d, d, generator=sample, dtype=torch.float64)
    ours = call(
        modules,
        "geometry",
        "return matrices.map((H) => [m.weightsOf(H), m.circulant(m.weightsOf(H)), m.offPlane(H)]);",
        matrices=H.tolist(),
    )
    # Least squares over the powers of Z, with the sum of the weights held at 1.
    powers = np.stack([np.roll(np.eye(d), k, 1).ravel() for k in range(d)], 1)
    system = np.block([[powers.T @ powers, np.ones((d, 1))], [np.ones((1, d)), 0]])
    for (weights, nearest, off), one in zip(ours, H.numpy(), strict=True):
        right = np.append(powers.T @ one.ravel(), 1)
        np.testing.assert_allclose(weights, np.linalg.solve(system, right)[:d], atol=CLOSE)
        np.testing.assert_allclose(nearest, (powers @ weights).reshape(d, d), atol=CLOSE)
        assert off == pytest.approx(np.linalg.norm(one - nearest), abs=CLOSE)


@pytest.mark.parametrize("d", [2, 3, 4])
def test_drawings_are_to_scale(modules, d):
    corners, polygons = call(modules, "geometry", "return [m.CORNERS[d], m.perfectMirsky(d)];", d=d)
    assert len(corners) == d
    if d < 4:
        sides = [np.linalg.norm(np.subtract(a, b)) for a in corners for b in corners if a != b]
        np.testing.assert_allclose(sides, 1)
    border = np.concatenate(polygons) @ [1, 1j]
    region = perfect_mirsky(d)
    assert region.contains(border, tolerance=1e-12).all()
    missing = [
        z for z in region.boundary if abs(abs(z) - 1) < 1e-9 and abs(z - border).min() > 1e-9
    ]
    assert missing == []


def test_the_deltoid_is_what_one_can_reach(modules):
    """Circulants with eigenvalues on the curve are squares of circulant rotations."""
    matrices = call(modules, "geometry", "return m.deltoid(60).map(m.circulant);")
    for B in np.array(matrices):
        roots = np.sqrt(np.clip(B[0], 0, None))
        defects = []
        for signs in ([1, 1, 1], [1, 1, -1], [1, -1, 1], [-1, 1, 1]):
            Q = np.stack([np.roll(roots * signs, k) for k in range(3)])
            defects.append(np.abs(Q @ Q.T - np.eye(3)).max())
        assert min(defects) < 1e-7


@pytest.mark.parametrize(
    ("name", "s"), [*((n, 2) for n in MIXERS if n != "identity"), ("go-mhc", 1)]
)
def test_trainings_agree(modules, name, s):
    """The loss of gomhc's own Adam with autograd, from the same start."""
    d, steps, rate = 4, 100, 0.05
    mixer = mixer_of(name, d, s, 20)
    start, target, losses = call(
        modules,
        "training",
        """const { makeMixer } = await import("/play/mixers.js");
        const { normals } = await import("/play/random.js");
        const { TARGETS } = await import("/play/geometry.js");
        const mixer = makeMixer(name, { d, s, iterations: 20 });
        const [start, target] = [mixer.start(normals(5)), TARGETS.inside.make(d)];
        const fit = new m.Fit(mixer, start, target, rate);
        for (let step = 0; step < steps; step++) fit.step();
        return [start, target, fit.losses];""",
        name=name,
        d=d,
        s=s,
        steps=steps,
        rate=rate,
    )
    goal = torch.tensor(target, dtype=torch.float64)
    theta = torch.tensor([start], dtype=torch.float64, requires_grad=True)
    adam, theirs = Adam(theta.detach()), []
    for _ in range(steps):
        loss = (mixer(theta) - goal).square().sum()
        theirs.append(loss.item())
        (gradient,) = torch.autograd.grad(loss, theta)
        theta = (theta - adam.step(gradient, rate, 1e-8)).detach().requires_grad_()
    np.testing.assert_allclose(losses, theirs, rtol=1e-6, atol=1e-12)
    assert losses[-1] < losses[0]


def test_the_picture_shows_where_the_page_begins(modules):
    begin = call(modules, "scene", "return m.look(m.first());")
    np.testing.assert_allclose(begin["H"], first_matrix().numpy(), atol=CLOSE)


# The page.


SUPERSCRIPTS = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
NUMBER = r"[−\d.]+(?: × 10[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)?"


def read(text: str) -> float:
    """A number as the page writes it."""
    return float(text.replace("−", "-").replace(" × 10", "e").translate(SUPERSCRIPTS))


class Player:
    """Opens the page, and takes down errors and requests to other hosts."""

    def __init__(self, browser: Browser, site: str, **options: Any):
        self.context = new_context(
            browser, **{"viewport": {"width": 1280, "height": 900}, **options}
        )
        self.page = self.context.new_page()
        self.wrong: list[str] = []
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on(
            "console",
            lambda m: self.wrong.append(m.text) if m.type in ("error", "warning") else None,
        )
        self.page.on(
            "request",
            lambda r: None if r.url.startswith((site, "data:")) else self.wrong.append(r.url),
        )
        self.site = site
        self.open()

    def open(self, name: str = "play.md") -> None:
        """Begin anew, at the top of the page (a reload would go back to where one was)."""
        self.page.goto(f"{self.site}{name}.html")
        expect(self.page.locator(".play")).to_be_visible()
        self.settle()

    def matrix(self) -> np.ndarray:
        """Entries and sums as the table says them."""
        rows = self.page.locator(".play-entries tbody tr").all()
        cells = [row.locator("td").all_text_contents() for row in rows]
        return np.array([[read(c or "nan") for c in row] for row in cells])

    def settle(self) -> None:
        """Wait for the next two frames."""
        self.page.evaluate(
            "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
        )

    def stop(self, name: str) -> None:
        self.page.locator(f"[data-stop={name}]").click()
        self.settle()

    def train(self) -> dict[str, float]:
        """Losses after a training to its end."""
        self.page.get_by_role("button", name="Train", exact=True).click()
        verdict = self.page.locator(".play [role=status]")
        expect(verdict).to_contain_text("Loss after")
        told = re.findall(rf"([a-z-]+) ({NUMBER}?)(?:, |\.$)", verdict.text_content())
        return {name: read(loss) for name, loss in told}

    def outputs(self) -> dict[str, float]:
        """Gains and the smallest singular value of the stack."""
        rows = self.page.locator(".play-legend div").all()
        return {
            row.locator("dt").text_content(): read(
                row.locator("dd").text_content().removesuffix(", to rounding")
            )
            for row in rows
        }


@pytest.fixture(scope="session")
def calm(browser: Browser, site: str) -> Iterator[Player]:
    """A reader who wants no motion, so that a training is over in one frame."""
    player = Player(browser, site, reduced_motion="reduce")
    yield player
    player.context.close()


@pytest.fixture
def player(calm: Player) -> Iterator[Player]:
    calm.wrong.clear()
    calm.open()
    yield calm
    assert calm.wrong == []


def test_a_slider_moves_the_matrix_by_keyboard(player):
    before = player.matrix()
    player.page.get_by_label("θ5", exact=True).focus()
    for _ in range(5):
        player.page.keyboard.press("ArrowRight")
    player.settle()
    after = player.matrix()
    assert np.abs(after - before)[:3, :3].max() > 0.002
    np.testing.assert_allclose(after[:3, 3], 1)
    np.testing.assert_allclose(after[3, :3], 1)


def test_the_pad_moves_theta_along_two_directions(player):
    surface = player.page.locator(".play-pad")
    surface.scroll_into_view_if_needed()
    player.settle()
    before = player.matrix()
    box = surface.bounding_box()
    player.page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 0.5)
    player.page.mouse.down()
    player.page.mouse.move(box["x"] + box["width"] * 0.8, box["y"] + box["height"] * 0.3)
    player.page.mouse.up()
    player.settle()
    dot = surface.locator("circle")
    assert float(dot.get_attribute("cx")) == pytest.approx(0.8 * 240, abs=2)
    assert float(dot.get_attribute("cy")) == pytest.approx(0.3 * 240, abs=2)
    assert np.abs(player.matrix() - before)[:3, :3].max() > 0.01

    player.page.get_by_label("upwards", exact=True).press("ArrowUp")
    player.settle()
    assert float(dot.get_attribute("cy")) < 0.3 * 240


def test_touch_drags_the_pad(browser, site):
    touched = Player(browser, site, viewport={"width": 390, "height": 844}, has_touch=True)
    before = touched.matrix()
    touched.page.locator(".play-pad").tap(position={"x": 30, "y": 30})
    touched.settle()
    assert np.abs(touched.matrix() - before)[:3, :3].max() > 0.01
    scroll = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    assert touched.page.evaluate(scroll)
    assert (
        touched.page.locator(".play-pad").evaluate("e => getComputedStyle(e).touchAction") == "none"
    )
    assert touched.wrong == []
    touched.context.close()


@pytest.mark.parametrize("method", list(MIXERS))
def test_every_method_can_be_played_at_every_order(player, method):
    page = player.page
    for d in ("4", "3", "2"):
        page.get_by_label("Streams d", exact=True).select_option(d)
        player.settle()
        option = page.get_by_label("Method", exact=True).locator(f"option[value='{method}']")
        if option.is_disabled():
            continue
        page.get_by_label("Method", exact=True).select_option(method)
        page.get_by_role("button", name="at random").click()
        player.settle()
        shown = player.matrix()
        assert shown.shape == (int(d) + 1, int(d) + 1)
        if MIXERS[method](int(d)).exact:
            np.testing.assert_allclose(shown[:-1, -1], 1)
            np.testing.assert_allclose(shown[-1, :-1], 1)
        np.testing.assert_allclose(shown[:-1, :-1].sum(1), shown[:-1, -1], atol=3e-3)


def test_a_method_goes_where_its_order_is_not_allowed(player):
    player.stop("product")
    expect(player.page.get_by_label("Method", exact=True)).to_have_value("kromhc")
    player.page.get_by_label("Streams d", exact=True).select_option("3")
    player.settle()
    expect(player.page.get_by_label("Method", exact=True)).to_have_value("go-mhc")
    assert player.matrix().shape == (4, 4)


@pytest.mark.parametrize("name", PLACES)
def test_live_views_work_wherever_the_book_has_some(player, name):
    player.open(name)
    page = player.page
    wanted = page.locator("[data-play]").evaluate("e => ({ ...e.dataset })")
    cards = page.locator(".play-card")
    expect(cards).to_have_count(len(wanted["play"].split()))
    for stop in wanted.get("stops", "").split():
        player.stop(stop)
    frames = int(page.locator(".play").get_attribute("data-frames"))
    surface = page.locator(".play-pad")
    if surface.count():
        surface.click(position={"x": 30, "y": 30})
    else:
        page.get_by_role("button", name="Train", exact=True).click()
    player.settle()
    assert int(page.locator(".play").get_attribute("data-frames")) > frames
    scroll = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    assert page.evaluate(scroll)


def test_most_chapters_of_the_construction_have_live_views():
    assert {"index.md", "tour.md", "play.md"} <= set(PLACES)
    chapters = {name[:2] for name in PLACES if name.endswith(".ipynb")}
    assert chapters == {"01", "02", "03", "05"}


# How H is made.


@pytest.mark.parametrize(("d", "s"), [(2, 1), (3, 2), (4, 3)])
def test_the_steps_of_the_construction_agree(modules, sample, d, s):
    mixer = mixer_of("go-mhc", d, s, 20)
    theta = torch.randn(mixer.num_parameters, generator=sample, dtype=torch.float64)
    ours = call(
        modules,
        "mixers",
        "return m.makeMixer('go-mhc', { d, s }).steps(theta);",
        d=d,
        s=s,
        theta=theta.tolist(),
    )
    A = skew_symmetric(theta)
    np.testing.assert_array_equal(ours["A"], A.numpy())
    np.testing.assert_allclose(ours["Q"], cayley(A).numpy(), atol=CLOSE)


def test_the_blocks_shown_are_the_entries(player):
    player.page.get_by_label("Streams d", exact=True).select_option("4")
    player.settle()
    pictures = player.page.locator(".play-thirds svg")
    A, Q, H = (
        np.array(
            pictures.nth(k)
            .locator("rect")
            .evaluate_all(
                "cells => cells.map((e) => (e.matches('.play-negative') ? -1 : 1)"
                " * Number(e.getAttribute('fill-opacity')))"
            )
        )
        for k in range(3)
    )
    A, Q, H = A.reshape(8, 8), Q.reshape(8, 8), H.reshape(4, 4)
    np.testing.assert_allclose(A, -A.T)
    np.testing.assert_allclose(Q @ Q.T, np.eye(8), atol=0.05)  # to the two digits of a colour
    np.testing.assert_allclose((Q**2).reshape(4, 2, 4, 2).sum((1, 3)) / 2, H, atol=0.02)
    np.testing.assert_allclose(H, player.matrix()[:4, :4], atol=0.01)
    player.page.get_by_label("Method", exact=True).select_option("mhc")
    player.settle()
    expect(player.page.locator(".play-thirds")).to_be_hidden()


# Guided stops: what each sentence says is so.


def test_stop_sinkhorn_after_one_step(player):
    player.stop("one-step")
    shown = player.matrix()
    np.testing.assert_allclose(shown[:4, 4], 1)
    assert np.abs(shown[4, :4] - 1).max() > 0.05
    assert player.page.locator(".play-off").count() >= 2
    assert player.outputs()["gain backward"] > 1.5
    slider = player.page.get_by_label("Sinkhorn’s steps", exact=True)
    slider.focus()
    player.page.keyboard.press("End")
    player.settle()
    assert np.abs(player.matrix()[4, :4] - 1).max() < 0.05


def test_stop_without_constraints(player):
    player.stop("free")
    assert player.outputs()["gain forward"] > 1000


def test_stop_with_a_target_out_of_reach(player):
    player.stop("out-of-reach")
    assert player.train()["go-mhc"] > 0.05
    player.page.get_by_label("Block size s", exact=True).select_option("2")
    player.page.get_by_role("button", name="near I", exact=True).click()
    player.settle()
    assert player.train()["go-mhc"] < 1e-4


def test_a_result_goes_when_it_is_no_longer_of_what_is_set(player):
    player.stop("out-of-reach")
    player.train()
    player.page.get_by_label("Target", exact=True).select_option("inside")
    player.settle()
    expect(player.page.locator(".play [role=status]")).to_have_text("Nothing trained yet.")
    assert "".join(player.page.locator(".play-rivals output").all_text_contents()) == ""


def test_a_stop_shows_what_it_is_about(browser, site):
    phone = Player(browser, site, viewport={"width": 390, "height": 844}, reduced_motion="reduce")
    for stop, title in {"one-step": "The matrix H", "dead-start": "Training"}.items():
        phone.stop(stop)
        phone.settle()
        expect(phone.page.get_by_text(title, exact=True)).to_be_in_viewport()
    phone.context.close()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (-0.00001, "−1.0 × 10⁻⁵"),
        (1.23456, "1.235"),
        (-2, "−2.000"),
        (123456, "1.2 × 10⁵"),
    ],
)
def test_numbers_are_written_for_readers(modules, value, text):
    assert call(modules, "dom", "return m.brief(value);", value=value) == text
    assert read(text) == pytest.approx(value, rel=0.05)


def test_a_projection_outside_the_polytope_says_so(player):
    player.stop("rotate")
    expect(player.page.get_by_text("outside the tetrahedron")).to_be_visible()


def test_stop_at_the_dead_start(player):
    player.stop("dead-start")
    losses = player.train()
    assert losses["go-mhc"] == 1.5  # ‖I − (I + Z)/2‖²
    np.testing.assert_array_equal(player.matrix()[:3, :3], np.eye(3))
    assert len(losses) > 1
    assert max(loss for name, loss in losses.items() if name != "go-mhc") < 0.01


def test_stop_at_a_product(player):
    player.stop("product")
    losses = player.train()
    assert losses.pop("kromhc") > 1
    assert max(losses.values()) < 0.01


def test_stop_at_rotations(player):
    player.stop("rotate")
    assert player.outputs()["smallest singular value"] == 1
    shown = player.matrix()
    assert np.abs(shown[:4, 4] - 1).max() > 0.1
    # Rows of length 1, to the digits of the table.
    np.testing.assert_allclose((shown[:4, :4] ** 2).sum(1), 1, atol=5e-3)


def test_the_first_stop_is_where_the_page_begins(player):
    before = player.matrix()
    player.stop("rotate")
    player.stop("drag")
    np.testing.assert_array_equal(player.matrix(), before)


# Motion, colours, paper.


def test_a_training_moves_frame_by_frame_and_stops_when_asked(browser, site):
    moving = Player(browser, site)
    moving.page.get_by_role("button", name="Train", exact=True).click()
    pause = moving.page.get_by_role("button", name="Stop", exact=True)
    moving.settle()
    moving.settle()
    pause.click()
    moving.settle()
    shown = moving.matrix()
    moving.settle()
    np.testing.assert_array_equal(moving.matrix(), shown)
    assert moving.page.locator(".play [role=status]").text_content() == ""
    assert moving.wrong == []
    moving.context.close()


def test_nothing_is_drawn_while_nothing_changes(player):
    frames = "document.querySelector('.play').dataset.frames"
    player.settle()
    before = player.page.evaluate(frames)
    for _ in range(3):
        player.settle()
    assert player.page.evaluate(frames) == before


def test_colours_follow_the_theme(player):
    ink = "getComputedStyle(document.querySelector('.play')).color"
    line = "getComputedStyle(document.querySelector('.play-legend line')).stroke"
    light = [player.page.evaluate(code) for code in (ink, line)]
    player.page.evaluate("document.documentElement.dataset.theme = 'dark'")
    dark = [player.page.evaluate(code) for code in (ink, line)]
    assert all(a != b for a, b in zip(light, dark, strict=True))


def test_paper_and_a_page_without_javascript_have_the_picture(browser, site, player):
    expect(player.page.locator("#fig-play")).to_be_hidden()
    player.page.emulate_media(media="print")
    expect(player.page.locator("#fig-play img")).to_be_visible()
    expect(player.page.locator(".play")).to_be_hidden()
    player.page.emulate_media(media="null")

    context = new_context(browser, java_script_enabled=False)
    plain = context.new_page()
    plain.goto(f"{site}play.md.html")
    expect(plain.locator("#fig-play img")).to_be_visible()
    context.close()


def test_every_control_and_picture_has_a_name(player):
    silent = player.page.evaluate(
        """() => [...document.querySelectorAll(".play :is(input, select, button, svg)")]
          .filter((e) => !e.closest("[aria-hidden]"))
          .filter((e) => !(e.getAttribute("aria-label") || e.textContent.trim()
            || e.labels?.[0]?.textContent.trim()))
          .map((e) => e.outerHTML.slice(0, 80))"""
    )
    assert silent == []


def test_it_works_from_a_folder_without_a_server(browser, tmp_path):
    page = PAGE.format(theme=THEME, place=PLACES["play.md"])
    (tmp_path / "play.md.html").write_text(page, encoding="utf-8")
    (tmp_path / "play.js").write_text(join(STATIC / "play" / "main.js"), encoding="utf-8")
    for name in ("play.css", "play.svg"):
        (tmp_path / name).write_bytes((STATIC / name).read_bytes())
    opened = Player(browser, f"{tmp_path.as_uri()}/")
    assert opened.matrix().shape == (4, 4)
    assert opened.wrong == []
    opened.context.close()
