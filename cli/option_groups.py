"""Command-line options made from the settings of the library, so that both say the same."""

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from inrcodec.meta.config import Option

MaxSamples = Annotated[
    int | None,
    typer.Option(
        "--max-samples", min=1, show_default="2^30", help="Refuse a file of more samples; a small file can claim many."
    ),
]
"""The option of commands that decode; None leaves it to `inrcodec.decoder.SAMPLES`, which takes seconds to import."""

Jobs = Annotated[
    int | None,
    typer.Option(
        "--jobs",
        "-j",
        min=1,
        show_default="as many as cores, 1 on a GPU",
        help="Files at once, each in a process of its own; N take N times the memory.",
    ),
]
"""The option of commands that take several files; see `inrcodec.cli.batch.Batch`."""

SkipExisting = Annotated[
    bool,
    typer.Option("--skip-existing", help="Leave out inputs whose outputs are there, to go on after a stop."),
]

FLAGS = {"inner_steps": ("-K",), "bootstrap_steps": ("-L",)}
"""Short names of some options."""


def with_options(parameter: str, options: "Mapping[str, Option]", panel: str) -> Callable[..., Callable[..., None]]:
    """Give a command an option for each of some settings, under one heading of its help.

    parameter: of the command, which gets the given ones as a dictionary by their names.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        def wrapper(**given: Any) -> None:
            settings = {name: given.pop(name) for name in options}
            command(**given, **{parameter: {name: value for name, value in settings.items() if value is not None}})

        parameters = [each for each in inspect.signature(command).parameters.values() if each.name != parameter]
        parameters += [
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_annotation(name, option, panel)
            )
            for name, option in options.items()
        ]
        wrapper.__name__, wrapper.__doc__ = command.__name__, command.__doc__
        wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        wrapper.__annotations__ = {each.name: each.annotation for each in parameters}
        return wrapper

    return decorate


def _annotation(name: str, option: "Option", panel: str) -> Any:
    kind = str if option.choices else int if option.whole else float
    shown = typer.Option(
        f"--{name.replace('_', '-')}",
        *FLAGS.get(name, ()),
        metavar="|".join(option.choices) or None,
        help=option.help,
        show_default="the preset's",
        rich_help_panel=panel,
    )
    return Annotated[kind | None, shown]
