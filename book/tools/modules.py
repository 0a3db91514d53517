"""Join JavaScript modules into one classic script: browsers import none into a page from file://.

Each becomes a function that is called once, after those that it imports, and returns what it
exports.
"""

import re
from pathlib import Path

NAMES = r"\{\s*\w+(?:,\s*\w+)*,?\s*\}"
IMPORT = re.compile(rf'^import ({NAMES}) from "\./([\w-]+\.js)";$', re.MULTILINE)
EXPORT = re.compile(r"^export ((?:const|function|class) (\w+))", re.MULTILINE)
OTHER = re.compile(r"^(?:import|export)\b.*", re.MULTILINE)


def join(entry: Path) -> str:
    """The script that does what the module `entry` does when it is loaded.

    Raises:
        ValueError: If a module imports or exports in another form than `import { a } from "./b.js"`
            and `export` before a const, function or class, or if modules import each other in a
            circle.
        FileNotFoundError: If a module is not there.
    """
    texts: dict[Path, str] = {}
    _collect(entry, texts, ())
    return '"use strict";\n{\nconst modules = {};\n' + "\n".join(texts.values()) + "}\n"


def _collect(path: Path, texts: dict[Path, str], above: tuple[Path, ...]) -> None:
    """Add a module's text after those that it imports."""
    if path in texts:
        return
    if path in above:
        raise ValueError(f"expected no circle of imports, got one through {path.name}")
    source = path.read_text(encoding="utf-8")
    for _, name in IMPORT.findall(source):
        _collect(path.parent / name, texts, (*above, path))
    text = IMPORT.sub(r'const \1 = modules["\2"];', source)
    exports = ", ".join(name for _, name in EXPORT.findall(text))
    text = EXPORT.sub(r"\1", text)
    if other := OTHER.search(text):
        raise ValueError(f"{path.name}: expected named imports and exports, got {other[0]!r}")
    texts[path] = f'modules["{path.name}"] = (() => {{\n{text}return {{ {exports} }};\n}})();\n'
