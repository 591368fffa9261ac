"""Check every Bitbucket Pipelines example in this repository against Bitbucket's own schema.

Examples are the ```yaml blocks of the documentation and every bitbucket-pipelines.yml. A block may be a whole
file or a part of one, as pipes show it: a list of steps, or one step's `script:`. YAML that is not for Pipelines
is fenced as ```yml, and is not looked at.

Runs under a Python that has scripts/requirements.txt: see `make docs`.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = ["README.md", "ARCHITECTURE.md", "docs/*.md", "examples/**/README.md"]
BLOCK = re.compile(r"^([ \t]*)```yaml[ \t]*\n(.*?)^\1```[ \t]*$", re.MULTILINE | re.DOTALL)
SCHEMA = "vendor.bitbucket-pipelines"

# Each has one mistake that people make; the check is worth something only while it finds them.
BROKEN = {
    "a boolean that is not quoted": "script:\n  - pipe: a/b:1.0.0\n    variables:\n      DEBUG: true\n",
    "a number that is not quoted": "script:\n  - pipe: a/b:1.0.0\n    variables:\n      MAX_RUNTIME: 5\n",
    "a time limit in words": "- step:\n    max-time: 'x'\n    script: [make]\n",
    "a pipe without its name": "script:\n  - variables:\n      DEBUG: 'true'\n",
    "an indentation slip": "script:\n  - pipe: a/b:1.0.0\n   variables: {}\n",
    "something that is not for Pipelines": "name: trainspot\nimage: a/b:1.0.0\n",
}


def whole(text):
    """The pipelines file that an example is, or is part of; ValueError says why there is none."""
    try:
        example = YAML(typ="safe").load(text)
    except YAMLError as error:
        raise ValueError(f"is not YAML: {error}") from error
    match example:
        case {"pipelines": _}:
            return example
        case {"script": _}:
            steps = [{"step": example}]
        case [{"step": _} | {"parallel": _} | {"stage": _}, *_]:
            steps = example
        case [{"pipe": _}, *_]:
            steps = [{"step": {"script": example}}]
        case _:
            raise ValueError("is neither a pipelines file, nor steps, nor a script (fence other YAML as ```yml)")
    return {"pipelines": {"default": steps}}


def examples():
    """Pairs of where an example stands and its text."""
    for pattern in DOCUMENTS:
        for document in sorted(ROOT.glob(pattern)):
            text = document.read_text()
            for block in BLOCK.finditer(text):
                line = text.count("\n", 0, block.start()) + 1
                yield f"{document.relative_to(ROOT)}:{line}", block[2]
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", ":(glob)**/bitbucket-pipelines.yml"]
    for name in subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split():
        yield name, (ROOT / name).read_text()


def mistake(text):
    """What is wrong with an example, or None."""
    try:
        example = whole(text)
    except ValueError as error:
        return str(error)
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
        YAML(typ="safe").dump(example, file)
        file.flush()
        command = [sys.executable, "-m", "check_jsonschema", "--color", "never", "--builtin-schema", SCHEMA, file.name]
        answer = subprocess.run(command, capture_output=True, text=True)
    return (answer.stdout + answer.stderr).replace(file.name, "") if answer.returncode else None


def main():
    missed = [name for name, text in BROKEN.items() if mistake(text) is None]
    if missed:
        sys.exit(f"error: the check passes {', '.join(missed)}")

    found = list(examples())
    if not found:
        sys.exit("error: no Pipelines example found to check")
    wrong = [(place, why) for place, text in found if (why := mistake(text)) is not None]
    for place, why in wrong:
        print(f"{place}: {why}")
    if wrong:
        sys.exit(f"error: {len(wrong)} of {len(found)} Pipelines examples are wrong")
    print(f"{len(found)} Pipelines examples are valid, {len(BROKEN)} broken ones are found out")


if __name__ == "__main__":
    main()
