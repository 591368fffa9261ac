#!/usr/bin/env python3
"""usage: check_style.py [--names]

Checks what neither rustfmt nor Clippy does, over the crates and the root package: how many type names and constants a
reader has to learn anew in each module, circles between the modules of a crate, long files, and long comment lines.
Prints each figure beside its limit, and fails if one is over it. --names lists what counts.
"""

import re
import sys
from collections import defaultdict
from pathlib import Path

SHARED_TYPE_NAMES_LIMIT_PERCENT = 8
ONE_WORD_CONSTANTS_LIMIT_PERCENT = 15
FILE_LIMIT_LINES = 400
COMMENT_LIMIT_COLUMNS = 110

ROOT = Path(__file__).resolve().parent.parent
VISIBILITY = r"(?:pub(?:\([^)]*\))? )?"
TYPE = re.compile(rf"^{VISIBILITY}(?:struct|enum|trait|type|union) (\w+)", re.MULTILINE)
CONSTANT = re.compile(rf"^\s*{VISIBILITY}(?:const|static) ([A-Z]\w*):", re.MULTILINE)
COMMENT = re.compile(r"\s*//[/!]?(.*)")
USE = re.compile(r"^\s*(pub(?:\([^)]*\))?\s+)?use\s+((?:crate|super|self|\w+)[^;\"]*);", re.MULTILINE)
PATH = re.compile(r"\b((?:crate|super|self)(?:::\w+)+)")


def without_tests(text):
    """The text of a file up to the unit tests at its end."""
    return text.partition("#[cfg(test)]\nmod tests {")[0]


def is_test(path):
    return path.name == "tests.rs" or "tests" in path.parts


class Crate:
    """The modules of a crate, by their paths: `("plan", "network")` is `crate::plan::network`."""

    def __init__(self, folder):
        files = [path for path in folder.rglob("*.rs") if not is_test(path.relative_to(folder))]
        self.modules = {self.name(path.relative_to(folder)): path for path in files}
        self.exports = {}
        used = {module: self.uses(module) for module in self.modules}
        self.arrows = {module: self.targets(module, paths) for module, paths in used.items()}

    @staticmethod
    def name(path):
        parts = path.with_suffix("").parts
        return () if parts in (("lib",), ("main",)) else parts[:-1] if parts[-1] == "mod" else parts

    def uses(self, module):
        """The paths within the crate that a module names, and in `exports` those that it gives on."""
        text = re.sub(r"//.*", "", without_tests(self.modules[module].read_text()))
        paths = []
        for public, tree in USE.findall(text):
            for path in leaves(tree):
                absolute = self.absolute(module, path)
                if absolute and public:
                    self.exports[module, absolute[-1]] = absolute
                paths.append(absolute)
        paths += [self.absolute(module, path) for path in PATH.findall(USE.sub("", text))]
        return [path for path in paths if path]

    def absolute(self, module, path):
        first, *rest = path.split("::")
        if first == "crate":
            return tuple(rest)
        if first == "self":
            return module + tuple(rest)
        depth = 0
        while first == "super":
            depth += 1
            first, *rest = rest or [""]
        if depth:
            return module[: len(module) - depth] + (first, *rest)
        return module + (first, *rest) if module + (first,) in self.modules else None

    def resolve(self, path):
        """The module that defines what a path leads to, through what other modules give on."""
        followed = set()
        while True:
            base = next(path[:length] for length in range(len(path), -1, -1) if path[:length] in self.modules)
            rest = path[len(base) :]
            if not rest or (base, rest[0]) not in self.exports or (base, rest[0]) in followed:
                return base
            followed.add((base, rest[0]))
            path = self.exports[base, rest[0]] + rest[1:]

    def targets(self, module, paths):
        """The modules that a module needs, but for those above and below it: a room and its parts are one."""
        found = {self.resolve(path) for path in paths}
        return {other for other in found if other[: len(module)] != module and module[: len(other)] != other}

    def circles(self):
        """Each set of modules that need each other."""
        reached = {module: self.reach(module) for module in self.modules}
        sets = {frozenset(other for other in found if module in reached[other]) for module, found in reached.items()}
        return [sorted("::".join(module) for module in circle) for circle in sets if len(circle) > 1]

    def reach(self, module):
        found, waiting = set(), [module]
        while waiting:
            for other in self.arrows[waiting.pop()]:
                if other not in found:
                    found.add(other)
                    waiting.append(other)
        return found


def leaves(tree):
    """The paths of a `use` tree: `a::{b, c::d}` is `a::b` and `a::c::d`."""
    tree = " ".join(tree.split())
    head, brace, rest = tree.partition("{")
    if not brace:
        return [tree.split(" as ")[0].strip()]
    depth, parts = 0, [""]
    for letter in rest[: rest.rindex("}")]:
        depth += (letter == "{") - (letter == "}")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [path for part in parts if part.strip() for path in leaves(head + part.strip())]


def percent(part, whole):
    return 100 * len(part) / max(len(whole), 1)


def main():
    folders = [ROOT / "src", *sorted((ROOT / "crates").glob("*/src"))]
    types, constants, long_files, long_comments = defaultdict(set), [], [], []
    for folder in [*folders, ROOT / "test"]:
        for path in sorted(folder.rglob("*.rs")):
            lines, shown = path.read_text().splitlines(), path.relative_to(ROOT)
            if len(lines) > FILE_LIMIT_LINES:
                long_files.append(f"{shown}: {len(lines)} lines")
            for number, line in enumerate(lines, 1):
                comment = COMMENT.match(line)
                # A table's row cannot be broken.
                if len(line) > COMMENT_LIMIT_COLUMNS and comment and not comment[1].lstrip().startswith("|"):
                    long_comments.append(f"{shown}:{number}: {len(line)} columns")
            if folder in folders and not is_test(shown):
                text = without_tests(path.read_text())
                for name in TYPE.findall(text):
                    types[name].add(shown)
                constants += [(name, shown) for name in CONSTANT.findall(text)]
    definitions = [(name, path) for name, paths in types.items() for path in paths]
    shared = [f"{name}: {path}" for name, path in definitions if len(types[name]) > 1]
    one_word = [f"{name}: {path}" for name, path in constants if "_" not in name]
    circles = [f"{folder.relative_to(ROOT)}: {', '.join(circle)}" for folder in folders for circle in Crate(folder).circles()]
    checks = [
        ("type names that several modules define, %", percent(shared, definitions), SHARED_TYPE_NAMES_LIMIT_PERCENT, shared),
        ("constants whose name is one word, %", percent(one_word, constants), ONE_WORD_CONSTANTS_LIMIT_PERCENT, one_word),
        ("circles between modules of a crate", len(circles), 0, circles),
        (f"files of more than {FILE_LIMIT_LINES} lines", len(long_files), 0, long_files),
        (f"comment lines of more than {COMMENT_LIMIT_COLUMNS} columns", len(long_comments), 0, long_comments),
    ]
    failed = False
    for what, figure, limit, which in checks:
        wrong = figure > limit
        failed |= wrong
        print(f"{'✖' if wrong else '✔'} {what}: {figure:.3g} (at most {limit})")
        if wrong or "--names" in sys.argv[1:]:
            print("".join(f"    {line}\n" for line in sorted(which)), end="")
    return failed


if __name__ == "__main__":
    sys.exit(main())
