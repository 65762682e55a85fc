"""One session: a state, its widgets and its plots. Nothing here is shared with another session."""

from __future__ import annotations

from typing import Any

from starpayne.errors import StarpayneError
from starpayne.explorer import downloads
from starpayne.explorer.controls import ABUNDANCES_HELD, Controls
from starpayne.explorer.dials import VSINI_MAX
from starpayne.explorer.extra import panel as library
from starpayne.explorer.figure import Plots
from starpayne.explorer.fits import FitQueue, Ticket
from starpayne.explorer.lines import Line, strongest
from starpayne.explorer.observed import Observed, compare
from starpayne.explorer.predictor import Predictor
from starpayne.explorer.state import State, from_query
from starpayne.explorer.upload import read_upload
from starpayne.explorer.wording import as_html, flag_in_words, notes_by_dial
from starpayne.fitting import FitOptions, FitResult
from starpayne.labels import is_abundance
from starpayne.spectra import ObservedSpectrum

SOON, REST, LONG_REST, NEXT, LOOK = 1, 200, 400, 20, 500
"""Milliseconds: until a redraw (moves that come before it share it), of rest until the derivative follows, of rest
after that until the lines do, between two elements, and between two looks at a fit."""


STATUS = ":host { font-size: 13px; line-height: 17px; color: #7a3300; overflow-y: auto; }"


class Page:
    """One visitor's page.

    Args:
        predictor, fits: of the server, shared by all pages.
        observed: the spectrum to begin with.
        query: of the link by which the page was opened.
    """

    def __init__(self, predictor: Predictor, fits: FitQueue, observed: Observed | None = None, query: str = "") -> None:
        pn = library()
        self.predictor, self.fits, self.observed = predictor, fits, observed
        self.state, notes = from_query(query, State.start(predictor.panel))
        self.messages: tuple[str, ...] = notes
        self.ticket: Ticket | None = None
        self._document = pn.state.curdoc if pn.state.curdoc and pn.state.curdoc.session_context else None
        self._location = pn.state.location if self._document else None
        self._asked = False
        self._draws = 0
        self._watcher: Any = None
        self.plots = Plots.of(predictor)
        self.controls = Controls.of(predictor.panel, self.turn, self.state.derivative)
        self.status = pn.pane.HTML("", margin=(0, 8), height=36, sizing_mode="stretch_width", stylesheets=[STATUS])
        self._plots_pane = pn.pane.Bokeh(self.plots.layout, sizing_mode="stretch_width", margin=0)
        self.view = self._laid_out()
        for name, value in self.state.values:
            self.controls.knobs[name].set(value)
        self._listen()
        if self._document is not None:
            pn.state.on_session_destroyed(lambda context: self.close())
        self.draw()
        self.rest(self._draws)

    # -- what is turned, and what is drawn ------------------------------------------------------------------

    def turn(self, name: str, value: float) -> None:
        """Turn one dial; the redraw follows at once, or with other moves that have arrived by then."""
        self.state = self.state.turned({name: value})
        self.controls.knobs[name].note("")
        self.redraw()

    def redraw(self) -> None:
        """Draw soon; in a notebook, now."""
        if self._document is None:
            self.draw()
            self.rest(self._draws)
        elif not self._asked:
            self._asked = True
            self._document.add_timeout_callback(self.draw, SOON)

    def draw(self) -> None:
        """Draw the spectrum and the residuals; what takes longer follows when the sliders are at rest."""
        self._asked = False
        self._draws += 1
        state, predictor = self.state, self.predictor
        depth = predictor.depth(state)
        self.plots.show_spectrum(predictor.wavelength(state), predictor.flux(state, depth))
        if self.observed is not None:
            self.plots.show_observed(self.observed, compare(predictor, state, self.observed, depth))
        if self._document is not None:
            draw = self._draws
            self._document.add_timeout_callback(lambda: self.rest(draw), REST)

    def rest(self, draw: int) -> None:
        """Draw the derivative, say what is to be said, and go on to the lines, unless something has moved since."""
        if draw != self._draws:
            return
        state = self.state
        slope = self.predictor.derivative(state, state.derivative)
        self.plots.show_derivative(self.predictor.wavelength(state), slope, self.predictor, state.derivative)
        self.controls.link.value = "?" + state.to_query()
        self.say()
        elements = [name for name in self.predictor.panel.space.names if is_abundance(name)]
        if self._document is None:
            self._mark(draw, elements, {})
        else:
            self._document.add_timeout_callback(lambda: self._mark(draw, elements, {}), LONG_REST)

    def _mark(self, draw: int, elements: list[str], found: dict[str, tuple[Line, ...]]) -> None:
        """Find the lines of one element after the other, so that a move never waits for more than one."""
        if draw != self._draws:
            return
        if elements:
            name, *elements = elements
            wavelength = self.predictor.wavelength(self.state)
            found = {**found, name: strongest(wavelength, self.predictor.derivative(self.state, name))}
        if elements and self._document is not None:
            self._document.add_timeout_callback(lambda: self._mark(draw, elements, found), NEXT)
        elif elements:
            self._mark(draw, elements, found)
        else:
            self.plots.show_lines(found)
            if self._document is None:
                library().io.push_notebook(self._plots_pane)

    def say(self, *messages: str) -> None:
        """Show messages, as plain text, with what is to be said of the state; those of before if there are none."""
        self.messages = messages or self.messages
        self.status.object = as_html((*self.messages, *self.state.warnings()))

    # -- the observed spectrum and its fit ------------------------------------------------------------------

    def receive(self, name: str, content: bytes | str) -> None:
        """Take an uploaded file, or say why not."""
        try:
            data = content.encode() if isinstance(content, str) else content
            self.observe(read_upload(name, data))
        except StarpayneError as error:
            self.say(f"refused: {error}")

    def observe(self, spectrum: ObservedSpectrum) -> None:
        """Show an observed spectrum beside the model.

        Raises:
            SpectrumError: it does not overlap the model.
        """
        self.observed = Observed.of(spectrum, self.predictor)
        self.controls.fit.disabled = self.ticket is not None
        pixels = len(self.observed.wavelength)
        notes = [flag_in_words(note) for note in spectrum.notes]
        if spectrum.medium is None:
            notes.append(flag_in_words("medium_assumed"))
        self.say(f"{spectrum.name}: {pixels:,} pixels in the model's range", *notes)
        self.redraw()

    def fit(self) -> None:
        """Ask for a fit of the observed spectrum at the resolution of the slider."""
        assert self.observed is not None
        held = self.controls.what.value == ABUNDANCES_HELD
        space = self.predictor.panel.space
        fix = {n: self.state[n] for n in space.names if held and (is_abundance(n) or n == "alpha_fe")}
        options = FitOptions(fix=fix, vsini_max=VSINI_MAX)
        try:
            self.ticket = self.fits.submit(self.observed.spectrum, self.state["resolution"], options)
        except StarpayneError as error:
            self.say(f"no fit: {error}")
            return
        self.controls.fit.disabled, self.controls.cancel.disabled, self.controls.busy.visible = True, False, True
        self.look()
        self._watcher = library().state.add_periodic_callback(self.look, period=LOOK)

    def look(self) -> None:
        """See how far the fit is."""
        ticket = self.ticket
        if ticket is None:
            return
        if ticket.stage == "waiting":
            self.say(f"waiting: {self.fits.ahead(ticket)} fit(s) ahead of this one")
        elif ticket.stage == "fitting":
            first = "; the first fit of a server takes longest" if ticket.steps < 2 else ""
            self.say(f"fitting {ticket.spectrum.name}: step {ticket.steps}, {ticket.seconds:.0f} s{first}")
        else:
            self._ended(ticket)

    def cancel(self) -> None:
        """Give the fit up."""
        if self.ticket is not None:
            self.fits.cancel(self.ticket)
            self.look()

    def _ended(self, ticket: Ticket) -> None:
        self.ticket = None
        if self._watcher is not None:
            self._watcher.stop()
            self._watcher = None
        self.controls.fit.disabled, self.controls.cancel.disabled, self.controls.busy.visible = False, True, False
        if isinstance(ticket.outcome, FitResult):
            self.take(ticket.outcome)
        elif ticket.outcome is not None:
            self.say(f"no fit: {ticket.outcome}")
        else:
            self.say("the fit was cancelled")

    def take(self, result: FitResult) -> None:
        """Put the labels of a fit onto the sliders, their errors beside them, and its flags into words."""
        notes, flags = notes_by_dial(result.flags)
        if "failed" in result.flags:
            self.say(flag_in_words("failed"))
            return
        errors = {**result.errors, "rv": result.rv_error, "vsini": result.vsini_error}
        values = {**result.labels, "rv": result.rv, "vsini": result.vsini}
        self.state = self.state.turned(values)
        for name in values:
            knob = self.controls.knobs[name]
            knob.set(self.state[name])
            error = "held" if name in result.fixed else f"± {knob.dial.text(errors[name])}"
            knob.note(notes.get(name, error))
        self.say(
            f"fitted {result.name}: reduced χ² {result.reduced_chi2:.2f}, {result.n_pixels:,} pixels, "
            f"signal to noise {result.snr:.0f}",
            *(flag_in_words(flag) for flag in flags),
        )
        self.redraw()

    def close(self) -> None:
        """Give up what the session has under way."""
        if self.ticket is not None:
            self.fits.cancel(self.ticket)

    # -- how it hangs together ------------------------------------------------------------------------------

    def _listen(self) -> None:
        controls = self.controls
        controls.fit.disabled = self.observed is None
        controls.fit.on_click(lambda event: self.fit())
        controls.cancel.on_click(lambda event: self.cancel())
        controls.copy.on_click(lambda event: self._to_address_bar())
        controls.derivative.param.watch(lambda event: self._differentiate(event.new), "value")
        controls.upload.param.watch(lambda event: self._uploaded(event.new), "value")

    def _differentiate(self, name: str) -> None:
        from dataclasses import replace

        self.state = replace(self.state, derivative=name)
        self.redraw()

    def _uploaded(self, files: dict[str, bytes | str]) -> None:
        for name, content in list(files.items()):
            self.receive(name, content)
        files.clear()

    def _to_address_bar(self) -> None:
        if self._location is not None:
            self._location.search = "?" + self.state.to_query()

    def _laid_out(self) -> Any:
        pn, controls = library(), self.controls

        def download(label: str, name: str, make: Any) -> Any:
            return pn.widgets.FileDownload(
                callback=make, filename=f"starpayne-{name}", label=label, button_type="default", width=58,
                margin=(18, 2, 0, 2), embed=False, auto=True, icon=None,
            )  # fmt: skip

        domain = self.predictor.model.emulator.domain
        title = pn.pane.HTML(
            f"<b>starpayne</b> {domain.low:.0f} to {domain.high:.0f} Å ({domain.medium})",
            width=414,
            margin=(20, 4, 0, 8),
            stylesheets=[":host { font-size: 15px; }"],
        )
        files = [
            download("CSV", "spectrum.csv", lambda: downloads.spectrum_file(self.predictor, self.state, ".csv")),
            download("FITS", "spectrum.fits", lambda: downloads.spectrum_file(self.predictor, self.state, ".fits")),
            download("PNG", "figure.png", lambda: downloads.figure_file(self.predictor, self.state, self.observed)),
        ]
        top = pn.Row(
            title, controls.what, controls.fit, controls.cancel, controls.derivative, *files, controls.link,
            controls.copy, margin=(4, 0),
        )  # fmt: skip
        sides = pn.Row(*controls.sides(self.predictor.panel), margin=(4, 0, 0, 8))
        main = pn.Column(pn.Row(controls.busy, self.status), self._plots_pane, sizing_mode="stretch_width", margin=0)
        return pn.Column(top, pn.Row(sides, main, sizing_mode="stretch_width"), sizing_mode="stretch_width")
