"""The directions of the arrows: a module imports only what stands below it."""

import ast
from pathlib import Path

import stackgan_tf

ROOT = Path(stackgan_tf.__file__).parent
LEVELS = [
    ["presets", "messages", "caption_files", "disk", "processes"],
    ["config", "blocks", "losses", "images", "picture_files", "latents", "progress",
     "flower_drawing", "parallel", "restricted_pickle", "manifest", "adam", "logs",
     "watchdog", "bootstrap", "feature_sets", "knobs", "augment", "characters"],
    ["conditioning_augmentation", "discriminator_blocks", "upsampling", "pipeline", "datasets.*",
     "text_encoders.*", "metrics.*", "pytorch_file", "strips", "what_to_draw", "devices",
     "dashboards", "projector", "served_generator", "distribution"],
    ["stage1", "stage2", "stackgan", "attribute_classifier", "data_report",
     "data_report_text", "stream", "saved_parts", "sources", "network_weights", "page"],
    ["build", "train_step", "shards", "feature_networks.*", "readings", "score_report"],
    ["checkpoint", "run_folder", "generate", "picture_folder", "neighbors", "features",
     "shown_texts"],
    ["below", "attribute_judge", "joint_space", "drawings", "reports", "spooling"],
    ["scores", "settings"],
    ["evaluation"],
    ["train", "train_text_encoder", "sample", "evaluate", "export", "inspect_data", "prepare",
     "import_pytorch", "api", "demo"],
    ["experiments.plan"],
    ["experiments.table", "experiments.step_times"],
    ["experiments.runner"],
    ["experiments.command_line"],
    ["experiments.ablation", "experiments.recipes", "experiments.curves"],
]
# Within a level nobody imports anybody, but for what reads a run of the same level.
WITHIN = {("generate", "run_folder"), ("generate", "checkpoint"), ("picture_folder", "run_folder")}


def level(name):
    names = {name, name.split(".")[0] + ".*"}
    found = [i for i, row in enumerate(LEVELS) if names & set(row)]
    assert found, f"{name}.py has no place in the layout; give it one in LEVELS"
    return found[0]


def modules():
    for path in sorted(ROOT.rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        if not name.endswith("__init__"):
            yield name, ast.parse(path.read_text())


def ours(tree):
    """Names of our modules that a tree imports, wherever in the file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "relative imports hide the arrows"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if name.startswith("stackgan_tf."):
                parts = name.split(".")[1:]
                while parts and not (ROOT.joinpath(*parts).with_suffix(".py").exists()):
                    parts.pop()
                if parts:
                    yield ".".join(parts)


def test_no_arrow_goes_up():
    for name, tree in modules():
        for other in ours(tree):
            below = level(other) < level(name) or (name, other) in WITHIN
            assert below, f"{name} imports {other}, which does not stand below it"


def test_train_step_imports_nothing_of_ours():
    assert not list(ours(dict(modules())["train_step"]))


def test_absl_only_in_config_and_command_lines():
    for name, tree in modules():
        imported = {alias.name.split(".")[0] for node in ast.walk(tree)
                    if isinstance(node, ast.Import) for alias in node.names}
        imported |= {node.module.split(".")[0] for node in ast.walk(tree)
                     if isinstance(node, ast.ImportFrom)}
        assert "absl" not in imported or name == "config" or level(name) >= level("train"), name


def test_package_files_stay_empty():
    for path in ROOT.rglob("__init__.py"):
        assert not [node for node in ast.walk(ast.parse(path.read_text()))
                    if isinstance(node, (ast.Import, ast.ImportFrom))], path
