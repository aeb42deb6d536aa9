"""What README says must be what the code does."""

from pathlib import Path

from pyprof.config import OPTIONS, Option

README = Path(__file__).parents[2] / "README.md"


def row(option: Option) -> str:
    default = {None: "–", True: "on", False: "off"}.get(option.default)
    if default is None:
        default = f"`{option.default:g}`" if isinstance(option.default, float) else f"`{option.default}`"
    return f"| `{option.name}` | {default} | {option.help} |"


def test_the_options_table_is_the_table_of_the_code() -> None:
    table = "\n".join(["| option | default | |", "|---|---|---|", *(row(option) for option in OPTIONS)])
    text = README.read_text(encoding="utf-8")
    begin = text.index("<!-- options")
    written = text[text.index("-->", begin) + 4 : text.index("<!-- /options -->")].strip()
    assert written == table, f"README.md's table should be:\n{table}"
