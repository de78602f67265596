"""What a power cut, a kill or a full disk leaves of a prepared set is made again, never taken."""

import json
import os
import platform
import subprocess
import sys

import pytest
import tensorflow as tf
from test_prepare import contents, elements, make_folder, settings

from stackgan_tf import disk, prepare, shards, sources
from stackgan_tf.config import UserError


@pytest.fixture
def almost(tmp_path, monkeypatch):
    """(Settings, OUT, its contents when whole): all shards are made, the last word is not said."""
    make_folder(tmp_path, 30)
    chosen, output = settings(tmp_path, tmp_path / "out", shards=4), tmp_path / "out"
    whole = settings(tmp_path, tmp_path / "whole", shards=4)
    prepare.prepare(whole)
    with monkeypatch.context() as patch:
        patch.setattr(prepare, "_finish", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            prepare.prepare(chosen)
    return chosen, output, contents(tmp_path / "whole")


def test_shards_that_are_not_as_their_reports_say_are_made_again(almost, capsys):
    chosen, output, whole = almost
    shard = [output / f"prepared-train.tfrecord-{i:05d}-of-00004" for i in range(4)]
    os.truncate(shard[0], 0)
    os.truncate(shard[1], shard[1].stat().st_size - 1)
    os.remove(shard[2])
    (output / ".progress/train-00003.json").write_bytes(b"")
    capsys.readouterr()
    assert prepare.prepare(chosen) == 0
    assert "shards are there" not in capsys.readouterr().out  # none of them
    assert contents(output) == whole


@pytest.mark.parametrize("report", [b"", b"{", b"[]", b"{}", b"\xff", b"0" * 100])
def test_a_report_that_cannot_be_read_is_none(almost, report, capsys):
    chosen, output, whole = almost
    (output / ".progress/train-00001.json").write_bytes(report)
    assert prepare.prepare(chosen) == 0
    assert "going on: 3 of 4 shards" in capsys.readouterr().out and contents(output) == whole


def test_half_written_files_go_once_nobody_else_is_at_it(almost, monkeypatch):
    chosen, output, whole = almost
    left = [output / name for name in ("prepared.json.7.tmp", ".progress/train-00000.json.7.tmp",
                                       ".progress/spool/train-00000.7.tmp")]
    (output / ".progress/spool").mkdir()
    for path in left:
        path.write_bytes(b"half")
    monkeypatch.setattr(prepare, "_finish", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        prepare.prepare(chosen)
    assert not [path for path in left if path.exists()]


def test_half_a_plan_is_no_other_file(tmp_path):
    make_folder(tmp_path, 2)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/prepared.json.7.tmp").write_bytes(b"{")
    assert prepare.prepare(settings(tmp_path, tmp_path / "out")) == 0


def test_a_damaged_plan_is_refused(almost):
    chosen, output, _ = almost
    (output / "prepared.json").write_bytes(b"")
    with pytest.raises(UserError, match="prepared.json is damaged; choose another --output"):
        prepare.prepare(chosen)


@pytest.mark.parametrize("damage", ["said", "shorter", "all"])
def test_a_spool_goes_on_behind_its_last_whole_chunk(tmp_path, monkeypatch, damage):
    monkeypatch.setattr(sources.Spool, "CHUNK", 4)
    spool, encoded = sources.Spool(str(tmp_path)), []

    def encode(element):
        encoded.append(element["file_name"])
        return element["file_name"].encode() * 3

    def write():
        return spool.write("train", elements(10), encode, 2, lambda _: None)

    assert write() == 10
    rows = spool.rows("train")
    assert write() == 10 and sorted(encoded) == [str(i) for i in range(10)]
    (tmp_path / ("train-00002.json" if damage == "said" else "train-00002")).write_bytes(b"")
    if damage == "all":  # the word that it is whole was on the disk before what it tells of
        (tmp_path / "train.json").write_bytes(b"")
    assert write() == 10
    assert sorted(encoded[10:]) == ["8", "9"] and (spool.rows("train") == rows).all()
    assert spool.read_example("train", rows[-1]) == b"999"


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="asks Linux what is synced")
def test_a_shard_is_on_the_disk_before_its_report(tmp_path, monkeypatch):
    done, sync, rename = [], os.fsync, tf.io.gfile.rename
    monkeypatch.setattr(os, "fsync", lambda handle: (
        done.append(os.path.basename(os.readlink(f"/proc/self/fd/{handle}"))), sync(handle)))
    monkeypatch.setattr(tf.io.gfile, "rename", lambda old, new, **more: (
        done.append("-> " + os.path.basename(new)), rename(old, new, **more)))
    monkeypatch.setattr(shards, "run", lambda plan, tasks, _: [
        shards.write_shard(plan, *task) for task in tasks])
    make_folder(tmp_path, 4)
    prepare.prepare(settings(tmp_path, tmp_path / "out", shards=1))
    half, name = f"train-00000.json.{os.getpid()}.tmp", "prepared-train.tfrecord-00000-of-00001"
    place = done.index("-> " + name)
    assert done[place - 1:place + 5] == [half, "-> " + name, "out",
                                         half, "-> train-00000.json", ".progress"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"),
                                   tf.errors.ResourceExhaustedError(None, None, "no space")])
def test_what_cannot_be_written_leaves_nothing(tmp_path, monkeypatch, error):
    path = str(tmp_path / "new/a.json")
    disk.write_whole(path, b"before")

    def fail(*_, **__):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(tf.io.gfile, "rename", fail)
        for shared in (False, True):
            with pytest.raises(type(error)):
                disk.write_whole(path, b"after", shared)
    assert os.listdir(tmp_path / "new") == ["a.json"]
    with open(path) as file:
        assert file.read() == "before"
    disk.write_whole(path, json.dumps([1]).encode())
    with open(path) as file:
        assert json.load(file) == [1]


def test_folders_of_processes_that_have_ended_are_removed(tmp_path, monkeypatch):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    others = ["7", ".git", ".7.tmp", "a.tmp"]
    with monkeypatch.context() as patch:  # this test's own parent is alive
        patch.setattr(os, "getpid", os.getppid)
        others.append(os.path.basename(disk.own_folder("x/8")))
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: ended.pid)
        gone = [os.path.basename(disk.own_folder("x/7"))]
        gone.append(gone[0] + ".tmp")
        patch.setattr(platform, "node", lambda: "another.machine")
        others.append(os.path.basename(disk.own_folder("x/7")))
    for name in [*gone, *others]:
        (tmp_path / name / "deeper").mkdir(parents=True)
    disk.remove_orphans(str(tmp_path))
    assert sorted(os.listdir(tmp_path)) == sorted(others)
    disk.remove_orphans(str(tmp_path / "none"))
