"""What an atlas costs: bytes and seconds to write one, and how fast its pages answer in a browser.

Of a page, the time until it is there with its first twelve pictures, counted from an empty window; of sorting, until
the last tile is in its place.

    python benchmarks/atlas.py 2000 26000
    python benchmarks/atlas.py 2000 --keep site      # leaves the folder there, to be looked at

The networks are made up: only the pages are measured. A Chromium of the machine is driven by playwright.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from atlas_records import MadeUp, count_units

from vizcnn.site.writer import Written, write_site

_PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
_TIMES = 5  # of which the median is said


@dataclass(frozen=True)
class Figures:
    """Of one site. Times in ms; of scrolling, the median and the longest twentieth of frames."""

    units: int
    widest: int
    bytes: int
    files: int
    seconds: float
    overview: float
    wall: float
    sort: float
    unit: float
    step: float
    frame: float
    frame_95: float
    search: float

    def row(self) -> str:
        size = f"{self.bytes / 1e6:.1f} MB, {self.files:,} files"
        cells = [
            f"{self.units:,}",
            f"{self.widest:,}",
            size,
            f"{self.bytes / self.units / 1e3:.1f} kB",
            f"{self.seconds:.0f} s",
        ]
        cells += [f"{value:.0f}" for value in (self.overview, self.wall, self.sort, self.unit, self.step)]
        cells += [f"{self.frame:.1f} ({self.frame_95:.0f})", f"{self.search:.1f}"]
        return f"| {' | '.join(cells)} |"


_NAMES = ("units", "widest layer", "size", "a unit", "written in", "overview", "wall", "sort", "unit", "next unit")
HEADER = f"| {' | '.join((*_NAMES, 'a frame', 'search'))} |\n{'|---' * 12}|"


def make_records(units: int, classes: int, images: int) -> MadeUp:
    """A residual network of so many units, of which up to 2,000 are in each of its last layers."""
    widths: list[int] = []
    left = units
    while left >= 16 and len(widths) < 40:
        widths.append(max(8, min(2000, int(left * 0.42))))
        left -= 2 * widths[-1]
    return MadeUp(tuple(reversed(widths)), classes, images, pictures=units <= 6000, closely=10)


def measure(records: MadeUp, folder: Path) -> Figures:
    """Write the site, and open it."""
    begun = time.process_time()
    written = write_site(records, folder)
    seconds = time.process_time() - begun
    return Figures(
        units=count_units(records),
        widest=max(layer.shape[0] for layer in records.network.layers),
        bytes=written.size,
        files=written.files.total(),
        seconds=seconds,
        **browse(records, written),
    )


def browse(records: MadeUp, written: Written) -> dict[str, Any]:
    """The times of a visit, each the median of a few."""
    from playwright.sync_api import sync_playwright

    hidden = [layer for layer in records.network.layers if not layer.is_output]
    wide = max(hidden, key=lambda layer: layer.shape[0])
    base = f"file://{written.folder.resolve()}/index.html"
    program = os.environ.get("VIZCNN_CHROMIUM") or next(filter(None, map(shutil.which, _PROGRAMS)))
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})

        def open_page(address: str, until: str) -> float:
            page.goto("about:blank")
            begun = time.perf_counter()
            page.goto(f"{base}#{address}", wait_until="commit")
            page.wait_for_function(_THERE, arg=until)
            return (time.perf_counter() - begun) * 1e3

        def repeat(address: str, until: str) -> float:
            return median(open_page(address, until) for _ in range(_TIMES))

        overview = repeat("", ".row")
        unit = repeat(f"{wide.name}/{wide.shape[0] // 2}", "main .card")
        wall = repeat(wide.name, ".wall .tile")
        page.wait_for_function("n => document.querySelectorAll('.wall .tile').length === n", arg=wide.shape[0])
        page.wait_for_timeout(1000)
        orders = page.locator(".tools select option").evaluate_all("options => options.map(option => option.value)")
        sort = median(page.evaluate(_SORT, order) for order in orders)
        frames = page.evaluate(_SCROLL)
        open_page(f"{wide.name}/{wide.shape[0] // 2}", "main .card")
        step = median(page.evaluate(_STEP) for _ in range(9))
        search = page.evaluate(_SEARCH, _count_notes(records))
        browser.close()
    gaps = sorted(later - before for before, later in pairwise(frames))
    return {
        "overview": overview, "wall": wall, "sort": sort, "unit": unit, "step": step, "search": search,
        "frame": median(gaps), "frame_95": gaps[int(len(gaps) * 0.95)],
    }  # fmt: skip


def _count_notes(records: MadeUp) -> int:
    return min(count_units(records), 1000)


_THERE = """what => document.querySelector(what)
    && [...document.querySelectorAll(`${what} img`)].slice(0, 12).every(image => image.complete)"""

_SORT = """order => new Promise(done => {
    const pick = document.querySelector('.tools select');
    const wall = document.querySelector('.wall');
    const count = () => wall.getElementsByClassName('tile').length;
    const all = count();
    pick.value = order;
    const begun = performance.now();
    pick.dispatchEvent(new Event('change'));
    const look = () => {
        if (count() < all) return requestAnimationFrame(look);
        document.body.offsetHeight;
        done(performance.now() - begun);
    };
    look();
})"""

_SCROLL = """() => new Promise(done => {
    const times = [];
    const step = now => {
        times.push(now);
        scrollBy(0, 60);
        times.length < 150 ? requestAnimationFrame(step) : done(times);
    };
    requestAnimationFrame(step);
})"""

_STEP = """() => new Promise(done => {
    const begun = performance.now();
    const main = document.getElementById('main');
    new MutationObserver((_, own) => {
        if (!main.querySelector('h1')) return;
        own.disconnect();
        document.body.offsetHeight;
        done(performance.now() - begun);
    }).observe(main, {childList: true});
    document.dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowRight', bubbles: true, cancelable: true}));
})"""

_SEARCH = """notes => {
    const layer = ATLAS.net.layers[1];
    for (let k = 0; k < notes; k++) ATLAS.net.notes[`${layer.name}/${k % layer.shape[0]}`] = `note ${k} on edges`;
    const asked = ['a', 'conv', 'layer3', layer.name + '/3', 'kind 1', 'edges', '7', 'nothing at all'];
    const times = asked.map(words => {
        const begun = performance.now();
        for (let n = 0; n < 5; n++) ATLAS.search.search(words);
        return (performance.now() - begun) / 5;
    });
    return Math.max(...times);
}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("units", type=int, nargs="+")
    parser.add_argument("--classes", type=int, default=200)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--keep", type=Path, help="the folder that the sites stay in")
    args = parser.parse_args()
    print(HEADER)
    with tempfile.TemporaryDirectory() as place:
        for units in args.units:
            records = make_records(units, args.classes, args.images)
            figures = measure(records, (args.keep or Path(place)) / str(units))
            print(figures.row(), flush=True)
            if args.keep:
                (args.keep / f"{units}.json").write_text(json.dumps(figures.__dict__, indent=1) + "\n")


if __name__ == "__main__":
    main()
