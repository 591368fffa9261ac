"""The real DVC, asked by lines of JSON on standard input: one process, as starting DVC takes half a second each time."""

import json
import logging
import os
import sys

answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

from dvc.ignore import DvcIgnoreFilter  # noqa: E402
from dvc.repo import Repo  # noqa: E402
from dvc.utils.serialize import dumps_yaml  # noqa: E402
from scmrepo.git import Git  # noqa: E402

logging.getLogger("dvc").setLevel(logging.CRITICAL)


def init(root, remote=None, folder=""):
    """A clone with a DVC repository, in a folder of it if one is named."""
    Git.init(root).close()
    root = os.path.join(root, folder)
    os.makedirs(root, exist_ok=True)
    os.chdir(root)
    repo = Repo.init(root, subdir=bool(folder))
    if remote:
        with repo.config.edit() as config:
            config["remote"]["trainspot"] = {"url": remote}
            config["core"]["remote"] = "trainspot"
    repo.close()


def with_repo(root, act):
    os.chdir(root)
    with Repo(root) as repo:
        return act(repo)


def add(root, targets):
    with_repo(root, lambda repo: repo.add(targets))


def git_add(root, paths):
    with Git(root) as git:
        git.add(paths)
        git.commit("tracked")


def pull(root):
    return with_repo(root, lambda repo: repo.pull())


def repro(root, targets):
    with_repo(root, lambda repo: repo.reproduce(targets))


def push(root, remote=None):
    return with_repo(root, lambda repo: repo.push(remote=remote))


def status(root):
    return with_repo(root, lambda repo: [repo.status(), repo.status(cloud=True)])


def scalars(texts):
    """Each as the value of a key in a list's mapping."""
    return [dumps_yaml({"outs": [{"path": text}]}) for text in texts]


def remotes(root, names):
    """Each remote's address and options, or what is wrong with it."""
    from dvc.config import Config
    from dvc.fs import get_cloud_fs, get_fs_config

    def one(name):
        try:
            config = Config(os.path.join(root, ".dvc"))
            name = name or config["core"].get("remote")
            get_cloud_fs_checks(config, name)
            return {key: str(value) for key, value in get_fs_config(config, name=name).items()}
        except Exception as error:
            return {"error": str(error)}

    def get_cloud_fs_checks(config, name):
        try:
            get_cloud_fs(config, name=name)
        except ImportError:
            pass  # the remote's own package, which is not what is asked about

    return [one(name) for name in names]


def config_file(text):
    """The sections of a configuration as DVC has them: kind, name and values of each."""
    import tempfile

    from dvc.config import Config

    with tempfile.NamedTemporaryFile("w", newline="", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        loaded = Config.load_file(file.name)
    found = []
    for kind, value in loaded.items():
        if kind in ("remote", "machine", "db"):
            for name, values in value.items():
                if not isinstance(values, dict):
                    raise ValueError(f"{kind} {name} is no section")
                found.append([kind, name, values])
        elif not isinstance(value, dict):
            raise ValueError(f"{kind} is no section")
        else:
            found.append([kind, "", value])
    for kind, _, values in found:
        if kind != "feature" and any(isinstance(value, dict) for value in values.values()):
            raise ValueError(f"a section in {kind}")
    return sorted(found, key=lambda section: section[:2])


def config_text(sections):
    """Sections as configobj writes them."""
    import io

    from configobj import ConfigObj

    config = ConfigObj({f'{kind} "{name}"' if name else kind: values for kind, name, values in sections})
    out = io.BytesIO()
    config.write(out)
    return out.getvalue().decode()


def configure(root, pairs, level):
    """`dvc config` of each pair."""
    from dvc.cli import main

    os.chdir(root)
    for name, value in pairs:
        assert main(["config", f"--{level}", name, value]) == 0, name


def commit(root):
    """Commits what git does not ignore."""
    import subprocess

    subprocess.run(["git", "-C", root, "add", "-A"], check=True, capture_output=True)
    subprocess.run(["git", "-C", root, "commit", "-qm", "all"], check=True, capture_output=True)


def ignored(root, paths):
    os.chdir(root)
    with Repo(root) as repo:
        check = DvcIgnoreFilter(repo.fs, root)
        of = lambda path: check.is_ignored_dir if os.path.isdir(path) else check.is_ignored_file
        data = [of(os.path.join(root, path))(os.path.join(root, path)) for path in paths]
        git = [repo.scm.is_ignored(os.path.join(root, path)) for path in paths]
    return [data, git]


for line in sys.stdin:
    request = json.loads(line)
    try:
        answer = {"value": globals()[request.pop("do")](**request)}
    except Exception as error:
        answer = {"error": f"{type(error).__name__}: {error}"}
    answers.write(json.dumps(answer) + "\n")
    answers.flush()
