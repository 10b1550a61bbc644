"""The pages of the reference are made from the code itself: its docstrings, settings and commands, so that they cannot rot.

Directives, each of which writes Markdown and has it parsed as if it stood in the page:

    {words} Dataset Csv     the words of these classes and functions of `mini_platform`, each with type, default and sentence
    {settings}              every setting with its variable, type, default and sentence
    {commands}              every command with its usage, arguments and options
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

WORD = re.compile(r"^ *((?:\w+, )*\w+): (.+(?:\n(?! *(?:\w+, )*\w+: ) +\S.*)*)", re.MULTILINE)
SECTIONS = re.compile(r"^(Attributes|Args|Returns|Raises|Yields):\n((?:(?: {4,}.*)?\n?)+)", re.MULTILINE)


def parts_of(documented: object) -> tuple[str, dict[str, str]]:
    """Return the text of a docstring before its sections, and its words with their sentences."""
    text = inspect.getdoc(documented) or ""
    words: dict[str, str] = {}
    for section, body in SECTIONS.findall(text):
        if section in ("Attributes", "Args"):
            for names, sentence in WORD.findall(body):
                words |= dict.fromkeys(names.split(", "), " ".join(sentence.split()))
    return SECTIONS.sub("", text).strip(), words


def cell(text: str) -> str:
    """Return a text as a cell of a Markdown table."""
    return text.replace("|", "\\|").replace("\n", " ")


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Return a Markdown table; empty without rows."""
    lines = [head, tuple("---" for _ in head), *rows] if rows else []
    return "\n".join("| " + " | ".join(map(cell, line)) + " |" for line in lines)


def code(text: object) -> str:
    """Return a text as inline code."""
    return f"`{text}`" if str(text) else ""


def short(value: object) -> str:
    """Return a value as code, of a class of words only what differs from its defaults."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        chosen = ((f.name, getattr(value, f.name), f.default) for f in dataclasses.fields(value))
        return f"{type(value).__name__}({', '.join(f'{n}={short(v)}' for n, v, default in chosen if v != default)})"
    if isinstance(value, tuple):
        return f"({', '.join(map(short, value))}{',' if len(value) == 1 else ''})"
    return repr(value)


def default_of(field: dataclasses.Field[Any]) -> str:
    """Return the default of a field as code; empty where it must be given."""
    if field.default is dataclasses.MISSING:
        return "" if field.default_factory is dataclasses.MISSING else short(field.default_factory())
    return short(field.default)


def parameter(taken: inspect.Parameter) -> str:
    """Return a parameter of a function with its type and default as code; that of a function of any words as its name alone."""
    if taken.kind is inspect.Parameter.VAR_KEYWORD:
        return "any other word"
    default = "" if taken.default in (inspect.Parameter.empty, None, ()) else f" = {code(repr(taken.default))}"
    kind = str(taken.annotation).removesuffix(" | None").replace("V | float | Decimal", "value")
    return f"`{taken.name}`: {code(kind)}{default}"


def sentence(text: str) -> str:
    """Return a text that begins in upper case and ends with a stop."""
    return text[:1].upper() + text[1:].rstrip(".") + "." if text else ""


def definitions(items: Iterable[tuple[str, str]]) -> str:
    """Return terms and what they mean as a Markdown definition list."""
    return "\n\n".join(f"{term}\n: {sentence(meaning)}" for term, meaning in items)


class Words(SphinxDirective):
    """`{words} NAME…`: what classes and functions of the public API take."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """Return the nodes of one section for each name."""
        import mini_platform

        made: list[nodes.Node] = []
        for name in self.arguments[0].split():
            documented = getattr(mini_platform, name)
            about, words = parts_of(documented)
            if dataclasses.is_dataclass(documented):
                known = {f.name: f for f in dataclasses.fields(documented) if f.name in words}
                given = {name: default_of(field) for name, field in known.items()}
                terms = [
                    (f"`{name}`: {code(field.type)}" + (f" = {code(given[name])}" if given[name] else ""), words[name])
                    for name, field in known.items()
                ]
            else:
                known_words = inspect.signature(documented).parameters
                terms = [
                    (parameter(known_words[word]), meaning) for word, meaning in words.items() if word in known_words
                ]
            listing = definitions(terms)
            made += self.parse_text_to_nodes(f"## `{name}`\n\n{about}\n\n{listing}\n", allow_section_headings=True)
        return made


def sentences_of(source: Path) -> dict[tuple[str, str], str]:
    """Return the texts below the fields of the classes of a module, by class and field."""
    found = {}
    for node in ast.parse(source.read_text()).body:
        if isinstance(node, ast.ClassDef):
            for field, after in zip(node.body, node.body[1:], strict=False):
                if (
                    isinstance(field, ast.AnnAssign)
                    and isinstance(field.target, ast.Name)
                    and isinstance(after, ast.Expr)
                    and isinstance(after.value, ast.Constant)
                ):
                    found[node.name, field.target.id] = " ".join(str(after.value.value).split())
    return found


def heading_of(part: type) -> str:
    """Return the first sentence of a class, as a heading."""
    return inspect.cleandoc(part.__doc__ or part.__name__).splitlines()[0].rstrip(".")


class Settings(SphinxDirective):
    """`{settings}`: every setting, by the part of the settings that it stands in."""

    def run(self) -> list[nodes.Node]:
        """Return the nodes of one section for each part."""
        from mini_platform.config import sections
        from mini_platform.config.settings import Settings as All

        sentences = sentences_of(Path(str(sections.__file__)))
        text = []
        for part in All.__bases__[:-1]:
            rows = []
            for name, field in part.model_fields.items():  # type: ignore[attr-defined]
                if name not in vars(part)["__annotations__"]:
                    continue
                alias = field.validation_alias or f"MINI_PLATFORM_{name}"
                variable = str(getattr(alias, "choices", [alias])[0]).upper()
                default = "" if field.is_required() or field.default is None else code(repr(field.default))
                rows.append((code(variable), default, sentences.get((part.__name__, name), "")))
            text.append(f"## {heading_of(part)}\n")
            text.append(table(("variable", "default", "meaning"), rows) + "\n")
        for name in ("InboxSettings", "S3Settings", "ApiSourceSettings"):
            group = getattr(sections, name)
            rows = [(code(f"…__{n.upper()}"), sentences.get((name, n), "")) for n in vars(group)["__annotations__"]]
            text.append(f"## {heading_of(group)}\n")
            text.append(table(("variable", "meaning"), [row for row in rows if "CONFIG" not in row[0]]) + "\n")
        return self.parse_text_to_nodes("\n".join(text), allow_section_headings=True)


class Commands(SphinxDirective):
    """`{commands}`: every command of `mini-platform`."""

    def run(self) -> list[nodes.Node]:
        """Return the nodes of one section for each command."""
        import click
        import typer

        from mini_platform.cli import app

        def walk(command: Any, path: str) -> Iterator[str]:
            context = click.Context(command, info_name=path)
            if hasattr(command, "commands"):
                for name in sorted(command.commands):
                    yield from walk(command.commands[name], f"{path} {name}".strip())
                return
            usage = " ".join([f"mini-platform {path}", *command.collect_usage_pieces(context)])
            yield f"## `{path}`\n\n```text\n{usage}\n```\n\n{inspect.cleandoc(command.help or '')}\n"
            terms = []
            for item in command.params:
                is_option = item.param_type_name == "option"
                names = ", ".join(map(code, item.opts)) if is_option else code(str(item.metavar or item.name).upper())
                terms.append((names, getattr(item, "help", None) or ""))
            yield definitions(terms) + "\n"
            if command.epilog:
                yield f"```sh\n{command.epilog.removeprefix('Example: ')}\n```\n"

        return self.parse_text_to_nodes("\n".join(walk(typer.main.get_command(app), "")), allow_section_headings=True)


def setup(app: Sphinx) -> dict[str, bool]:
    """Make the directives known to Sphinx."""
    app.add_directive("words", Words)
    app.add_directive("settings", Settings)
    app.add_directive("commands", Commands)
    return {"parallel_read_safe": True}
