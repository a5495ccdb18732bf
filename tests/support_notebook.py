"""A real JupyterLab in a real Chromium, with one notebook whose cell has run."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
import pytest
from support import ROOT

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

_PATIENCE = 120  # seconds: for the slowest of machines


@dataclass
class Lab:
    """A notebook that is open. trouble: errors of pages, and requests of anything but the server's own addresses."""

    page: Page
    file: Path
    trouble: list[str] = field(default_factory=list)

    def choose_theme(self, name: str) -> None:
        """Through the menu, as a person does."""
        self.page.click(".lm-MenuBar-item:has-text('Settings')")
        self.page.hover(".lm-Menu-item:has-text('Theme')")
        self.page.click(f".lm-Menu-item:has-text('{name}')")

    def save(self) -> Any:
        """The notebook as it is saved."""
        self.page.click(".lm-MenuBar-item:has-text('File')")
        self.page.click(".lm-Menu-item[data-command='docmanager:save']")
        for _ in range(_PATIENCE * 10):
            time.sleep(0.1)
            with suppress(nbformat.reader.NotJSONError):  # it is being written
                saved = nbformat.read(self.file, 4)
                if saved.cells[0].outputs:
                    return saved
        raise AssertionError("the notebook is not saved")


def require_lab() -> None:
    """Skip the test where a part is missing."""
    for name in ("jupyterlab", "anywidget", "ipykernel"):
        if find_spec(name) is None:
            pytest.skip(f"{name} is not installed: pip install {name}")


@contextmanager
def open_notebook(browser: Browser, folder: Path, code: str, until: str) -> Iterator[Lab]:
    """Write a notebook of one cell, open it, run it, and wait for what a selector finds."""
    file = folder / "notebook.ipynb"
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    cells = [nbformat.v4.new_code_cell(code), nbformat.v4.new_code_cell("")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), file)
    with _serve(folder) as address:
        page = browser.new_context(viewport={"width": 1400, "height": 1150}).new_page()
        page.set_default_timeout(_PATIENCE * 1000)
        lab = Lab(page, file)
        own = (f"{address}/", "data:", f"blob:{address}/", "about:")
        page.on("request", lambda one: None if one.url.startswith(own) else lab.trouble.append(f"request: {one.url}"))
        page.on("pageerror", lambda error: lab.trouble.append(f"error: {error}"))
        page.goto(f"{address}/lab/tree/{file.name}?reset")
        page.wait_for_selector(".jp-NotebookPanel .jp-Cell")
        page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status='idle']")
        page.wait_for_selector(".jp-Spinner", state="detached")
        _run_all(page)
        page.wait_for_selector(until)
        yield lab
        page.context.close()


def _run_all(page: Page) -> None:
    """Run all cells, once a notebook that has just been opened takes the command."""
    from playwright.sync_api import TimeoutError as NotYet

    for _ in range(_PATIENCE // 5):
        page.click(".lm-MenuBar-item:has-text('Run')")
        page.click(".lm-Menu-item[data-command='runmenu:run-all']")
        with suppress(NotYet):
            page.wait_for_selector(".jp-InputPrompt:text-matches('[0-9*]')", timeout=5000)
            return
    pytest.fail("JupyterLab does not run the notebook")


@contextmanager
def _serve(folder: Path) -> Iterator[str]:
    """A JupyterLab that shows a folder to this machine, and knows nothing of its user's settings."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}"),
        *("--ServerApp.port_retries=0", f"--ServerApp.root_dir={folder}"),
        *("--IdentityProvider.token=", "--ServerApp.password=", "--LabApp.extension_manager=readonly"),
        *("--LabApp.news_url=", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"),
    ]
    homes = ["JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"]
    homes += ["JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR"]
    own = {name: str(folder / "home" / name) for name in homes}
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, **own, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    with (folder / "log.txt").open("w") as log:
        server = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            _wait_for(f"http://127.0.0.1:{port}/api", server)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            with suppress(subprocess.TimeoutExpired):
                server.wait(20)
            server.kill()
            server.wait()


def _wait_for(address: str, server: subprocess.Popen[bytes]) -> None:
    for _ in range(_PATIENCE * 5):
        with suppress(OSError), urllib.request.urlopen(address):
            return
        assert server.poll() is None, "JupyterLab does not start"
        time.sleep(0.2)
    pytest.fail("JupyterLab does not answer")
