"""Files for import_pytorch. What tensors may be missing or lie is in test_import_pytorch.py and
test_pytorch_file.py."""

import io
import pickle
import zipfile

from bad_input.mistakes import case, folder, link

COMMAND = "import_pytorch --to=coco --weights=F"


def file(content, *words):
    return case(COMMAND, "--weights", *words, files={"F": content})


def archive(**members):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as made:
        for name, content in members.items():
            made.writestr(name.replace("__", "/").replace("_pkl", ".pkl"), content)
    return data.getvalue()


class Evil:
    def __reduce__(self):
        import os
        return os.mkdir, ("ran",)


CASES = {
    "missing": case(COMMAND, "--weights=F cannot be read: No such file"),
    "a folder": file(folder, "F cannot be read: Is a directory"),
    "a loop": case(COMMAND, "--weights=F cannot be read: Too many", files={"F": link("F")}),
    "0 bytes": file(b"", "F is no PyTorch file", "give one that torch.save made"),
    "1 byte": file(b"\x80", "F is no PyTorch file"),
    "a web page": file("<!DOCTYPE html>", "F is no PyTorch file"),
    "a pointer of Git LFS": file("version https://git-lfs.github.com/spec/v1\n", "no PyTorch file"),
    "safetensors": file((64).to_bytes(8, "little") + b'{"x": {"dtype": "F32"}}', "no PyTorch file"),
    "HDF5": file(b"\x89HDF\r\n\x1a\n" + bytes(100), "F is no PyTorch file"),
    "a pickle": file(pickle.dumps({"ca_net.fc.weight": [1.0]}), "F is no PyTorch file"),
    "a pickle that runs": file(pickle.dumps(Evil()), "F is no PyTorch file"),
    "head of a zip": file(b"PK\x03\x04", "F is damaged or cut off; get it again"),
    "a zip of nothing": file(archive(), "F"),
    "a zip of notes": file(archive(notes="hello"), "F is a zip but no PyTorch file"),
    "a zip of two models": file(archive(a__data_pkl="", b__data_pkl=""), "F is a zip but no"),
    "a zip that runs": file(archive(a__data_pkl=pickle.dumps({"x": Evil()}, 2)),
                            "asks for posix.mkdir", "nothing of it was run"),
    "TorchScript": file(archive(a__data_pkl=b"\x80\x02c__torch__.model\nNet\n)\x81.",
                                a__constants_pkl=b"\x80\x02)."), "asks for __torch__.model.Net"),
    "a zip of an empty pickle": file(archive(a__data_pkl=b""), "F"),
    "a zip of a list": file(archive(a__data_pkl=pickle.dumps([1], 2)), "F holds one list"),
    "a zip of no tensors": file(archive(a__data_pkl=pickle.dumps({}, 2)),
                                "no StackGAN generator", "Give netG_epoch_N.pth"),
    "npz": file(archive(**{"x.npy": b"\x93NUMPY\x01\0"}), "F is a zip but no PyTorch file"),
    "no name for the run": case(["import_pytorch", "--weights=F", "--to="], "--to=RUN"),
    "a run that is there": case(
        "import_pytorch --weights=F --to=x", "F is no PyTorch file",
        files={"F": "x", "checkpoints/x/stage1/saved_model/saved_model.pb": ""}),
    "checkpoint_dir a file": case(COMMAND + " --checkpoint_dir=C", "C is no folder",
                                  "--checkpoint_dir", files={"F": "x", "C": ""}),
}
