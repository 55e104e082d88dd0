"""Tables as LaTeX that fit the page: columns share the line, long tables continue on the next page."""

import re
from collections.abc import Sequence

from pandas import DataFrame

from spaced_kd.analysis.layout import MARKS

BREAK = "\u200b"  # zero-width space
SPECIAL = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"}
    | {"±": r"$\pm$", "Δ": r"$\Delta$", "σ": r"$\sigma$", "α": r"$\alpha$", "β": r"$\beta$", "φ": r"$\phi$"}
    | {"−": "$-$", "–": "--", "×": r"$\times$", "∇": r"$\nabla$", "ᵀ": r"$^{T}$", "¹": "$^{1}$", "²": "$^{2}$"}
    | {BREAK: r"\allowbreak{}"}
    | {mark: f"$^{{{letter}}}$" for mark, letter in zip(MARKS, "abcdefghijklmnoprstuvwxyz", strict=True)}
)
PACKAGES = r"% needs \usepackage{array,booktabs,longtable,pdflscape}"
# characters of \scriptsize on a line of the class article, upright and in landscape; a column's margins take three
LINE, LANDSCAPE, MARGIN = 96, 150, 3


def escape(text: str) -> str:
    """Text as LaTeX typesets it unchanged; signs of numbers become minus signs, and labels may break within."""
    return _breakable(re.sub(r"(?<![\w-])-(?=\d)", "−", text)).translate(SPECIAL)


def _breakable(text: str) -> str:
    """Text with a zero-width space wherever a label such as `digits[size=16,split=1]` may break."""
    return re.sub(r"(?<=[_=\[])(?=\w)|(?<=,)(?=[^\W\d])", BREAK, text)


def _longest_word(cells: Sequence[str]) -> int:
    return max(len(word) for cell in cells for word in re.split(rf"[\s{BREAK}]", _breakable(cell)))


def table(name: str, caption: str, texts: DataFrame, notes: Sequence[str]) -> str:
    """A table of text as a `longtable`, in landscape where its words are too long for a line.

    Args:
        name: its label is `tab:<name>`.
        caption: as it is, unescaped.
        texts: the cells, unescaped.
        notes: paragraphs below the table, unescaped.
    """
    words = [_longest_word([head, *texts[head]]) for head in texts]
    landscape = sum(words) + MARGIN * len(words) > LINE
    drawn = texts.map(escape).rename(columns=escape)
    body = drawn.to_latex(
        index=False,
        escape=False,
        longtable=True,
        column_format=_columns(texts, words, LANDSCAPE if landscape else LINE),
        caption=escape(caption),
        label=f"tab:{name}",
    )
    below = "".join(f"\n\\noindent {escape(note)}\\par\n" for note in notes)
    body = re.sub(r"\\caption\[\].*\n", "", body)  # which pandas repeats on every page
    lengths = r"\scriptsize\setlength{\tabcolsep}{3pt}\setlength{\LTcapwidth}{\linewidth}"
    content = f"{{{lengths}\n{body}{below}}}\n"
    return PACKAGES + "\n" + (f"\\begin{{landscape}}\n{content}\\end{{landscape}}\n" if landscape else content)


def _columns(texts: DataFrame, words: list[int], line: int) -> str:
    """Column types: `l` where all fits on a line of so many characters, else `p` with shares of it.

    Each column has room for its longest word; what is left goes to columns by the square root of their longest cell.
    """
    natural = [max(map(len, [head, *texts[head]])) for head in texts]
    room = line - MARGIN * len(words)
    if sum(natural) <= room:
        return "l" * len(natural)
    spare = max(room - sum(words), 0)
    wanted = [(whole - word) ** 0.5 for whole, word in zip(natural, words, strict=True)]
    widths = [word + spare * want / sum(wanted) for word, want in zip(words, wanted, strict=True)]
    scale = min(1, room / sum(widths)) / line
    return "".join(rf">{{\raggedright\arraybackslash}}p{{{width * scale:.3f}\linewidth}}" for width in widths)
