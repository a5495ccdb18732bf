"""A small network that is computed by hand, hostile names, and a browser to look at pages with."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import numpy as np
import pytest
import torch
from atlas_records import MadeUp
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from vizcnn.site.records import (
    Activation,
    ByHand,
    ClassPage,
    Folded,
    ImagePage,
    Layer,
    Missing,
    Network,
    Path,
    Reading,
    Unit,
    Wall,
)

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

_PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
HOSTILE = "<img src=x onerror=alert(1)>"
BREAKING = "\"></a></script><script>alert(2)</script><svg onload=alert(3)>' \u202e'); alert(4); //"


# --------------------------------------------------------------------------------------------------------- a browser


def find_chromium() -> str:
    """The Chromium of this machine. Skips the test where there is none, or nothing to drive it with."""
    if find_spec("playwright") is None:
        pytest.skip("playwright is not installed")
    named = os.environ.get("VIZCNN_CHROMIUM")
    if named == "":
        pytest.skip("VIZCNN_CHROMIUM is empty: no browser is wanted")
    found = named or next(filter(None, map(shutil.which, _PROGRAMS)), None)
    if not found:
        pytest.skip(f"no Chromium here: none of {', '.join(_PROGRAMS)} is installed")
    return found


@contextmanager
def open_browser() -> Iterator[Browser]:
    program = find_chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


class Visitor:
    """Opens pages of a site from its folder, and writes down whatever a visitor must not get.

    trouble: messages of the console, errors, dialogs, requests of anything but the site's own files, and violations of
    the policy."""

    def __init__(self, browser: Browser, site: FilePath, *, width: int = 1280, scheme: Any = "light") -> None:
        self.site, self.trouble, self.files = site.resolve(), list[str](), list[str]()
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, has_touch=True)
        self.page: Page = context.new_page()
        self.page.set_default_timeout(60_000)
        self.page.on("console", lambda message: self.trouble.append(f"console: {message.text}"))
        self.page.on("pageerror", lambda error: self.trouble.append(f"error: {error}"))
        self.page.on("request", lambda request: self._look(request.url))
        self.page.on("requestfailed", lambda request: self._fail(request.url, str(request.failure)))

        def refuse(dialog: Any) -> None:
            self.trouble.append(f"dialog: {dialog.message}")
            dialog.dismiss()

        self.page.on("dialog", refuse)
        self.page.add_init_script(
            "addEventListener('securitypolicyviolation', e => console.log('policy', e.blockedURI, e.violatedDirective))"
        )

    def _fail(self, url: str, why: str) -> None:
        if "ERR_ABORTED" not in why:  # that of a picture which nobody waits for any more
            self.trouble.append(f"failed: {url}: {why}")

    def _look(self, url: str) -> None:
        if url == "about:blank":
            return
        if unquote(url).startswith(f"file://{self.site}/"):
            self.files.append(unquote(url).removeprefix(f"file://{self.site}/").partition("#")[0])
        else:
            self.trouble.append(f"request: {url}")

    def go(self, address: str) -> Page:
        """Open a page anew, as a link from elsewhere would."""
        self.page.goto("about:blank")
        self.page.goto(f"file://{self.site}/index.html#{address}")
        self.page.wait_for_selector("main h1", state="attached")
        return self.page

    def follow(self, address: str) -> Page:
        """Go to a page inside the site, as a link on it would."""
        self.page.evaluate(
            """address => new Promise((done, fail) => {
                const main = document.getElementById('main');
                const before = location.href;
                const observer = new MutationObserver(() => {
                    if (main.querySelector('h1')) { observer.disconnect(); done(); }
                });
                observer.observe(main, {childList: true});
                setTimeout(() => fail(new Error(`no page at ${address}`)), 60000);
                location.hash = address;
                if (location.href === before) done();
            })""",
            address,
        )
        return self.page

    def read(self, expression: str, *given: Any) -> Any:
        return self.page.evaluate(expression, *given)

    def close(self) -> None:
        self.page.context.close()


# --------------------------------------------------------------------------------------------------- a data set


def write_noise(folder: FilePath, count: int) -> FilePath:
    """A folder of three classes of images, some brighter than others, whose files have a name that is found again
    wherever it is."""
    random = np.random.default_rng(0)
    for i in range(count):
        (folder / str(i % 3)).mkdir(parents=True, exist_ok=True)
        pixels = (random.random((28, 28)) * 255 * (i % 5 + 1) / 5).astype(np.uint8)
        Image.fromarray(pixels).save(folder / str(i % 3) / f"secretname{i}.png")
    return folder


# ---------------------------------------------------------------------------------------------------- records to show


@dataclass(frozen=True)
class Hostile(MadeUp):
    """Everything that comes from a person is markup, a path, or worse."""

    @cached_property
    def network(self) -> Network:
        plain = super().network
        first, *others = plain.layers
        evil = replace(first, name=f"{HOSTILE}/x", read=BREAKING, stage=HOSTILE)
        second = replace(others[0], name="class", paths=(replace(others[0].paths[0], weights=BREAKING, norm=HOSTILE),))
        notes = {
            f"{HOSTILE}/x/1": f"evil {HOSTILE}",
            "class 1": f"evil {BREAKING}",
            "image 0": HOSTILE,
            BREAKING: "evil",
        }
        origin = replace(plain.origin, model=BREAKING, data=HOSTILE, options=((HOSTILE, BREAKING),))
        return replace(
            plain, title=f"</title>{HOSTILE}", classes=self._names(), layers=(evil, second, *others[1:]), notes=notes,
            origin=origin,
        )  # fmt: skip

    def _names(self) -> tuple[str, ...]:
        return (HOSTILE, BREAKING, "../../etc/passwd", *super()._names())[: self.classes_]

    @cached_property
    def images(self) -> Any:
        plain = super().images
        return replace(plain, names=(HOSTILE, BREAKING, "../../evil.js", *plain.names)[: len(plain.names)])

    def units(self, layer: int) -> Iterator[Unit]:
        for unit in super().units(layer):
            yield replace(unit, effect=Missing(BREAKING), reads_are=HOSTILE)


NOTHING = Missing("Nobody has measured it.")


@dataclass(frozen=True)
class Unmeasured(MadeUp):
    """A network that could not be followed, and of which little was measured."""

    @cached_property
    def network(self) -> Network:
        plain = super().network
        layers = tuple(
            replace(layer, paths=(), field=NOTHING, zeros=NOTHING, dead=NOTHING, always_on=NOTHING)
            for layer in plain.layers
        )
        return replace(plain, layers=layers, accuracy=NOTHING, graph=Missing("Its forward cannot be recorded."))

    @cached_property
    def images(self) -> Any:
        plain = super().images
        return replace(
            plain, labels=np.full_like(plain.labels, -1), probabilities=np.full_like(plain.probabilities, np.nan)
        )

    def wall(self, layer: int) -> Wall:
        plain = super().wall(layer)
        unknown = np.full_like(plain.mean, np.nan)
        return replace(
            plain, zeros=unknown, selectivity=unknown, effect=unknown, class_means=NOTHING,
            best_class=np.full_like(plain.best_class, -1), is_estimated=np.zeros_like(plain.is_estimated),
        )  # fmt: skip

    def units(self, layer: int) -> Iterator[Unit]:
        plain = MadeUp(self.widths, self.classes_, self.images_, self.side, pictures=False)
        for unit in plain.units(layer):
            crops = tuple(replace(crop, box=None) for crop in unit.crops)
            yield replace(
                unit, crops=crops, histogram=NOTHING, zeros=NOTHING, classes=NOTHING, overall=NOTHING, effect=NOTHING,
                reads=NOTHING, feeds=NOTHING, neighbours=NOTHING,
            )  # fmt: skip

    def classes(self) -> Iterator[ClassPage]:
        for number, page in enumerate(super().classes()):
            taken = tuple(np.flatnonzero(self.images.predicted == number).tolist())
            yield replace(
                page, right=NOTHING, picture=NOTHING, examples=taken, votes=NOTHING, early=NOTHING, taken_for=(),
                taken_from=(),
            )  # fmt: skip

    def image_pages(self) -> Iterator[ImagePage]:
        for page in super().image_pages():
            yield replace(page, answers=(), maps=(), unmade=(NOTHING.reason,), fired=NOTHING)


# ----------------------------------------------------------------------------------------- a network computed by hand


class Shortcuts(nn.Module):
    """Norms, bias, padding, strides, groups, dilation, an identity, a 1x1 shortcut, pooling, and dense layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=4)
        self.conv3 = nn.Conv2d(8, 12, (3, 5), stride=2, padding=(0, 2), bias=False)
        self.shortcut = nn.Conv2d(8, 12, 1, stride=2, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(8), nn.BatchNorm2d(8), nn.BatchNorm2d(12), nn.BatchNorm2d(12)])
        self.fc1 = nn.Linear(12 * 2 * 3, 6)
        self.fc2 = nn.Linear(6, 5)

    def read_all(self, images: Tensor) -> list[tuple[list[Tensor], Tensor]]:
        """What each layer reads by each of its paths, and what it says."""
        first = self.norms[0](self.conv1(images)).relu()  # (N, 8, 8, 8)
        second = (self.norms[1](self.conv2(first)) + first).relu()  # (N, 8, 8, 8)
        cropped = second[:, :, 1:-1]  # (N, 8, 6, 8), so that the unpadded rows of conv3 fit those of the shortcut
        third = F.silu(self.norms[2](self.conv3(second)) + self.norms[3](self.shortcut(cropped)))  # (N, 12, 3, 4)
        pooled = F.max_pool2d(third, 2, stride=1)  # (N, 12, 2, 3)
        fourth = self.fc1(pooled.flatten(1)).relu()  # (N, 6)
        said = self.fc2(fourth)  # (N, 5)
        reads = [[images], [first, first], [second, cropped], [pooled], [fourth]]
        return list(zip(reads, [first, second, third, fourth, said], strict=True))


def _fold(module: nn.Conv2d | nn.Linear, norm: nn.Module | None) -> Folded:
    weight = module.weight.detach().double()
    bias = torch.zeros(len(weight), dtype=torch.double) if module.bias is None else module.bias.detach().double()
    if isinstance(norm, nn.BatchNorm2d):
        assert norm.running_var is not None
        assert norm.running_mean is not None
        scale = norm.weight.detach().double() / (norm.running_var.double() + norm.eps).sqrt()
        weight = weight * scale.view(-1, *[1] * (weight.dim() - 1))
        bias = (bias - norm.running_mean.double()) * scale + norm.bias.detach().double()
    values, offset = weight.float().numpy(), bias.float().numpy()
    if not isinstance(module, nn.Conv2d):
        return Folded(values, offset)
    padding = module.padding
    assert not isinstance(padding, str)
    stride, dilation = module.stride, module.dilation
    return Folded(
        values, offset, (stride[0], stride[1]), (padding[0], padding[1]), (dilation[0], dilation[1]), module.groups
    )


def _make_shortcuts() -> Shortcuts:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        module = Shortcuts().eval().requires_grad_(False)
        for norm in (part for part in module.norms if isinstance(part, nn.BatchNorm2d)):
            assert norm.running_mean is not None
            assert norm.running_var is not None
            nn.init.normal_(norm.running_mean, std=0.3)
            nn.init.uniform_(norm.running_var, 0.3, 2)
            nn.init.normal_(norm.weight, 1, 0.3)
            nn.init.normal_(norm.bias, std=0.3)
    return module


@dataclass(frozen=True)
class Computed(MadeUp):
    """Records of a network of random weights, always the same, that can be computed by hand, on two images."""

    side: int = 16
    classes_: int = 5
    wrong: bool = False
    module: Shortcuts = field(default_factory=_make_shortcuts)

    @cached_property
    def network(self) -> Network:
        def layer(i: int, name: str, shape: tuple[int, ...], paths: list[Path], activation: Activation) -> Layer:
            return replace(
                super(Computed, self)._layer(i, name, shape[0], shape[-1] if len(shape) > 1 else 2, (), ""),
                shape=shape, paths=tuple(paths), activation=activation, field=NOTHING, is_output=name == "fc2",
                parameters=sum(p.numel() for key, p in self.module.named_parameters() if key.startswith(name)),
            )  # fmt: skip

        norm = "a norm"
        layers = (
            layer(0, "conv1", (8, 8, 8), [Path(None, "conv1", norm, (3, 3))], "relu"),
            layer(1, "conv2", (8, 8, 8), [Path(0, "conv2", norm, (3, 3), 4), Path(0, "")], "relu"),
            layer(2, "conv3", (12, 3, 4), [Path(1, "conv3", norm, (3, 5)), Path(1, "shortcut", norm, (1, 1))], "silu"),
            layer(3, "fc1", (6,), [Path(2, "fc1", via=("max pooling",))], "relu"),
            layer(4, "fc2", (5,), [Path(3, "fc2")], ""),
        )
        return replace(super().network, layers=layers)

    @cached_property
    def runs(self) -> list[list[tuple[list[Tensor], Tensor]]]:
        photos = [torch.from_numpy(self.photograph(n)).permute(2, 0, 1)[None] / 255 for n in (0, 1)]
        return [self.module.read_all(photo) for photo in photos]

    def by_hand(self, layer: int) -> ByHand | Missing:
        net, norms = self.module, self.module.norms
        terms = (
            (_fold(net.conv1, norms[0]),),
            (_fold(net.conv2, norms[1]), None),
            (_fold(net.conv3, norms[2]), _fold(net.shortcut, norms[3])),
            (_fold(net.fc1, None),),
            (_fold(net.fc2, None),),
        )[layer]
        if self.wrong and terms[0] is not None:
            terms = (replace(terms[0], bias=terms[0].bias + 0.1), *terms[1:])
        readings = tuple(
            Reading(n, tuple(read[0].numpy() for read in run[layer][0]), run[layer][1][0].numpy())
            for n, run in enumerate(self.runs)
        )
        return ByHand(terms, readings)
