"""Commands with bad input, run in this process through their real `__main__`, flags and all."""

import dataclasses
import os
import shlex
import shutil

import typed


@dataclasses.dataclass(frozen=True)
class Case:
    """A command that must end in one line which holds `words`.

    Attributes:
        command: module and flags as they are typed, or a list of them.
        words: each stands in the line.
        files: {path: content}, relative to where it is run, where "D" is a captioned folder. A
            content is bytes or str, or a Copy, or a function of the path that makes it (or
            changes it: what comes later comes on top).
        code: the exit code.
    """

    command: str | list
    words: tuple[str, ...]
    files: dict = dataclasses.field(default_factory=dict)
    code: int = 1


def case(command, *words, files=None, code=1):
    return Case(command, words, files or {}, code)


def usage(command, *words, files=None):
    """A command line that cannot be understood."""
    return Case(command, words, files or {}, 2)


def on_run(command, *words, run="sketch", files=None, code=1):
    """With a copy of a run, which `files` may damage: runs/<run>/stage1 ..."""
    typed = shlex.split(command) if isinstance(command, str) else command
    return Case([*typed, "--checkpoint_dir=runs", f"--run={run}"], words,
                {f"runs/{run}": Copy(run), **(files or {})}, code)


def folder(path):
    """An empty one, in the place of a file if there is one."""
    gone(path)
    os.mkdir(path)


def link(target):
    return lambda path: os.symlink(target, path)


def gone(path):
    if os.path.isdir(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.remove(path)


@dataclasses.dataclass(frozen=True)
class Copy:
    """Of one of the folders that a Place knows."""

    word: str


class Place:
    """A folder to be wrong in.

    Args:
        known: {word: path} of what a Copy may be of.
    """

    def __init__(self, path, known):
        self.path, self.known = path, known

    def make(self, files):
        for name, content in files.items():
            path = os.path.join(self.path, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            if callable(content):
                content(path)
                continue
            gone(path)
            if isinstance(content, Copy):
                shutil.copytree(self.known[content.word], path)
            else:
                with open(path, "wb") as file:
                    file.write(content.encode() if isinstance(content, str) else content)

    def content(self):
        """{path: (size, time of its last change)} of all files, folders without."""
        found = {}
        for root, folders, names in os.walk(self.path):
            found.update((os.path.join(root, name), None) for name in folders)
            for name in names:
                stat = os.lstat(os.path.join(root, name))
                found[os.path.join(root, name)] = stat.st_size, stat.st_mtime_ns
        return found

    def check(self, case, capsys):
        """Runs a case; everything that is promised of it is asserted."""
        self.make(case.files)
        before = self.content()
        command = shlex.split(case.command) if isinstance(case.command, str) else case.command
        capsys.readouterr()
        code = typed.run(f"stackgan_tf.{command[0]}", command[1:])
        out, err = capsys.readouterr()
        lines = err.splitlines()
        assert "Traceback" not in out + err, err
        assert code == case.code, (code, out, err)
        assert lines and lines[-1].startswith("error: "), err
        assert sum(line.startswith("error: ") for line in lines) == 1, err
        assert len(lines[-1]) < 1100 and lines[-1].isprintable(), lines[-1]
        missing = [word for word in case.words if word not in lines[-1]]
        assert not missing, f"{missing} not in: {lines[-1]}"
        assert self.content() == before, sorted(set(self.content()) ^ set(before))
        return lines[-1]
