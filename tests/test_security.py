"""What SECURITY.md promises of the code: nothing that comes from a file is run."""

import ast
import re
from pathlib import Path

import pytest
from conftest import ROOT

import stackgan_tf

PACKAGE = Path(stackgan_tf.__file__).parent
# Names that run, or may run, what they are given.
FORBIDDEN = {
    "eval", "exec", "compile", "__import__", "Lambda", "os.system", "os.popen", "pickle.load",
    "pickle.loads", "pickle.Unpickler", "yaml.load", "yaml.unsafe_load", "marshal.load",
    "marshal.loads", "shelve.open", "joblib.load", "dill.load", "dill.loads", "cloudpickle.load",
    "cloudpickle.loads", "keras.models.load_model", "keras.saving.load_model",
    "keras.config.enable_unsafe_deserialization", "enable_unsafe_deserialization",
    "tarfile.extractall", "extractall", "unpack_archive", "py_function", "tf.py_function",
}
MODULES = {"pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "yaml"}


def trees():
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def keyword(call, name):
    """The source of a keyword argument; None if it is not given."""
    return next((ast.unparse(k.value) for k in call.keywords if k.arg == name), None)


def findings(tree):
    """What in a module may run foreign code, as text."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.name for alias in node.names]
            if isinstance(node, ast.ImportFrom):
                names.append(node.module)
            yield from (f"import {name}" for name in names if name.split(".")[0] in MODULES)
            continue
        if isinstance(node, ast.Name) and node.id in FORBIDDEN:
            yield node.id
        if isinstance(node, ast.Attribute):
            # the whole dotted name, or its end: keras.layers.Lambda, archive.extractall
            dotted = ast.unparse(node)
            if dotted in FORBIDDEN or node.attr in FORBIDDEN - {"compile"}:
                yield dotted
        if not isinstance(node, ast.Call):
            continue
        function = ast.unparse(node.func)
        if keyword(node, "shell") not in (None, "False"):
            yield f"{function} in a shell"
        if keyword(node, "allow_pickle") not in (None, "False") or (
                function == "np.load" and keyword(node, "allow_pickle") != "False"):
            yield f"{function} without allow_pickle=False"
        if function == "torch.load" and keyword(node, "weights_only") != "True":
            yield "torch.load without weights_only=True"
        if keyword(node, "safe_mode") not in (None, "True"):
            yield f"{function} without safe_mode"


def test_no_module_runs_what_it_reads():
    found = {name: list(findings(tree)) for name, tree in trees()}
    assert len(found) > 40
    assert {name: what for name, what in found.items() if what} == {}


@pytest.mark.parametrize("code", [
    "eval('1')", "exec(x)", "f = eval", "keras.layers.Lambda(f)", "from pickle import load",
    "import pickle", "import yaml", "np.load(path)", "np.load(path, allow_pickle=True)",
    "torch.load(path)", "torch.load(path, weights_only=False)", "subprocess.run('x', shell=True)",
    "archive.extractall()", "os.system('x')", "__import__(name)", "import joblib as j",
    "keras.models.load_model(path, safe_mode=False)", "compile(x, '', 'exec')",
])
def test_the_search_finds(code):
    assert list(findings(ast.parse(code)))


def test_the_search_leaves_alone():
    code = ("re.compile('a'); np.load(path, allow_pickle=False); model.eval_step(); "
            "torch.load(p, weights_only=True); subprocess.Popen(['x']); restricted_pickle.load(p)")
    assert not list(findings(ast.parse(code)))


def test_modules_are_imported_by_names_of_our_own():
    """importlib only ever gets a name that was found in the package's own folder."""
    found = [(name, ast.unparse(node)) for name, tree in trees() for node in ast.walk(tree)
             if isinstance(node, ast.Call) and "import_module" in ast.unparse(node.func)]
    assert found == [
        ("build.py", "importlib.import_module(f'stackgan_tf.datasets.{name}')")]
    # and build._dataset has compared the name with pkgutil's list before: see the table's
    # "data set of a module" and "data set above" in test_bad_input.py


def test_processes_are_started_without_a_shell():
    """Commands of our own, and git, which is asked for the commit of a measurement."""
    started = [ast.unparse(node) for _, tree in trees() for node in ast.walk(tree)
               if isinstance(node, ast.Call) and ast.unparse(node.func).startswith((
                   "subprocess.", "processes.run"))]
    allowed = ("processes.run([sys.executable, '-m',", "subprocess.run(['git', '-C',",
               "subprocess.Popen(command, start_new_session=True,")  # of processes.run
    assert started and all(call.startswith(allowed) for call in started), started


def test_only_the_demo_speaks_to_the_network():
    """It shows a page and asks a server; every other module opens no socket of its own."""
    network = {"socket", "socketserver", "http", "urllib", "requests", "ftplib", "aiohttp"}
    speaking = set()
    for name, tree in trees():
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else (
                [node.module] if isinstance(node, ast.ImportFrom) else [])
            if {n.split(".")[0] for n in names} & network:
                speaking.add(name)
    assert speaking <= {"demo.py", "page.py", "served_generator.py"}


def test_what_security_md_names_is_there():
    text = (Path(ROOT) / "SECURITY.md").read_text(encoding="utf-8")
    for path in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (Path(ROOT) / path).exists(), path
    assert "[SECURITY.md](SECURITY.md)" in (Path(ROOT) / "README.md").read_text(encoding="utf-8")
