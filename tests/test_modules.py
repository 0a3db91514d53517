"""JavaScript modules joined into one script."""

import re
from pathlib import Path

import pytest

from book.tools.modules import join

STATIC = Path(__file__).resolve().parents[1] / "book" / "static"


def write(folder: Path, **modules: str) -> Path:
    for name, text in modules.items():
        (folder / f"{name}.js").write_text(text, encoding="utf-8")
    return folder / "main.js"


def test_a_module_comes_once_and_after_what_it_imports(tmp_path):
    entry = write(
        tmp_path,
        main='import { a } from "./one.js";\nimport {\n  b,\n} from "./two.js";\nuse(a, b);\n',
        one='import { b } from "./two.js";\nexport const a = b + 1;\n',
        two="export function b() {}\nexport class C {}\nconst own = 1;\n",
    )
    script = join(entry)
    assert re.findall(r'^modules\["(\w+)\.js"\]', script, re.M) == ["two", "one", "main"]
    assert re.findall(r"^return .*", script, re.M) == [
        "return { b, C };",
        "return { a };",
        "return {  };",
    ]
    assert "import" not in script
    assert "export" not in script


@pytest.mark.parametrize(
    "line",
    [
        'import * as one from "./one.js";',
        'import { a as b } from "./one.js";',
        'import one from "https://elsewhere.example/one.js";',
        "export default 1;",
        'export { a } from "./one.js";',
    ],
)
def test_another_form_is_refused(tmp_path, line):
    entry = write(tmp_path, main=f"{line}\n", one="export const a = 1;\n")
    with pytest.raises(ValueError, match=re.escape(line)):
        join(entry)


def test_a_circle_is_refused(tmp_path):
    one = 'import { b } from "./two.js";\nexport const a = 1;\n'
    entry = write(
        tmp_path,
        main='import { a } from "./one.js";\n',
        one=one,
        two='import { a } from "./one.js";\nexport const b = 1;\n',
    )
    with pytest.raises(ValueError, match=r"circle of imports, got one through one\.js"):
        join(entry)


def test_the_script_of_play_has_all_its_modules_and_no_address():
    script = join(STATIC / "play" / "main.js")
    names = {path.name for path in (STATIC / "play").glob("*.js")}
    assert set(re.findall(r'^modules\["([\w-]+\.js)"\] = ', script, re.M)) == names
    assert re.findall(r"https?://[^\"]*", script) == ["http://www.w3.org/2000/svg"]
