"""The page as a server on this machine, for its own users alone."""

from __future__ import annotations

import socket
from typing import Any

from starpayne.bundle import Model
from starpayne.errors import SpectrumError
from starpayne.explorer.extra import panel as library
from starpayne.explorer.fits import FitQueue
from starpayne.explorer.observed import Observed
from starpayne.explorer.page import Page
from starpayne.explorer.predictor import Predictor
from starpayne.spectra import ObservedSpectrum

ADDRESS = "127.0.0.1"
PORT = 5006
MESSAGE = 32 * 2**20
"""Bytes of one message from a browser: a piece of an upload, at most."""


def serve(
    model: Model,
    spectrum: ObservedSpectrum | None = None,
    resolution: float | None = None,
    port: int = PORT,
    browser: bool = True,
    ready: Any = None,
) -> None:
    """Serve the page until Ctrl-C, on 127.0.0.1 only.

    Args:
        model, spectrum, resolution: as of :func:`starpayne.explore`; every visitor begins with them.
        port: 0 for any that is free.
        browser: whether to open the page in one.
        ready: called with the address as soon as it answers.

    Raises:
        MissingExtraError, SpectrumError: as of :func:`starpayne.explore`; or the port is taken.
    """
    pn = library()
    predictor = Predictor.of(model, resolution)
    observed = None if spectrum is None else Observed.of(spectrum, predictor)
    port = free_port(port)
    fits = FitQueue(model)
    predictor.warm()

    def session() -> Any:
        query = pn.state.location.search if pn.state.location else ""
        return Page(predictor, fits, observed, query).view

    server = pn.serve(
        {"/": session}, port=port, address=ADDRESS, show=browser, start=False, verbose=False,
        title="starpayne explorer",
        websocket_origin=[f"{ADDRESS}:{port}", f"localhost:{port}"], websocket_max_message_size=MESSAGE,
    )  # fmt: skip
    try:
        server.start()
        if ready is not None:
            ready(f"http://{ADDRESS}:{port}/")
        server.io_loop.start()
    except KeyboardInterrupt:
        pass
    finally:
        fits.close()


def free_port(port: int) -> int:
    """Return the port, or any free one for 0.

    Raises:
        SpectrumError: it is taken.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((ADDRESS, port))
        except OSError as error:
            raise SpectrumError(
                f"port {port} cannot be used ({error.strerror}): give another one, or --port 0"
            ) from error
        return int(probe.getsockname()[1])
