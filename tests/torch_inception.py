"""The FID's Inception in plain PyTorch functions, by pytorch-fid's names: a reference for tests."""

import torch
from torch.nn import functional


def features(state, pictures):
    """state: {name: tensor}; pictures: float (B, 3, H, W) in [0, 1] -> (B, 2048)."""
    def conv(x, name, stride=1, pad=True):
        kernel = state[f"{name}.conv.weight"]
        padding = [side // 2 if pad else 0 for side in kernel.shape[2:]]
        norm = [state[f"{name}.bn.{part}"] for part in ("running_mean", "running_var", "weight",
                                                        "bias")]
        x = functional.conv2d(x, kernel, stride=stride, padding=padding)
        return functional.relu(functional.batch_norm(x, *norm, eps=0.001))

    def row(x, *names, last_stride=1):
        for i, name in enumerate(names):
            last = i == len(names) - 1
            x = conv(x, name, last_stride if last else 1, not (last and last_stride == 2))
        return x

    def numbered(block, branch, count):
        return [f"{block}.{branch}_{i}" for i in range(1, count + 1)]

    def average(x):
        return functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)

    def halve(x):
        return functional.max_pool2d(x, 3, 2)

    x = functional.interpolate(pictures, (299, 299), mode="bilinear", align_corners=False)
    x = conv(2 * x - 1, "Conv2d_1a_3x3", 2, False)
    x = halve(conv(conv(x, "Conv2d_2a_3x3", 1, False), "Conv2d_2b_3x3"))
    x = halve(conv(conv(x, "Conv2d_3b_1x1"), "Conv2d_4a_3x3", 1, False))
    for b in ("Mixed_5b", "Mixed_5c", "Mixed_5d"):
        x = torch.cat([conv(x, f"{b}.branch1x1"), row(x, *numbered(b, "branch5x5", 2)),
                       row(x, *numbered(b, "branch3x3dbl", 3)),
                       conv(average(x), f"{b}.branch_pool")], 1)
    x = torch.cat([conv(x, "Mixed_6a.branch3x3", 2, False),
                   row(x, *numbered("Mixed_6a", "branch3x3dbl", 3), last_stride=2), halve(x)], 1)
    for b in ("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"):
        x = torch.cat([conv(x, f"{b}.branch1x1"), row(x, *numbered(b, "branch7x7", 3)),
                       row(x, *numbered(b, "branch7x7dbl", 5)),
                       conv(average(x), f"{b}.branch_pool")], 1)
    x = torch.cat([row(x, *numbered("Mixed_7a", "branch3x3", 2), last_stride=2),
                   row(x, *numbered("Mixed_7a", "branch7x7x3", 4), last_stride=2), halve(x)], 1)
    for b in ("Mixed_7b", "Mixed_7c"):
        pooled = average(x) if b == "Mixed_7b" else functional.max_pool2d(x, 3, 1, 1)
        middle, deep = conv(x, f"{b}.branch3x3_1"), row(x, *numbered(b, "branch3x3dbl", 2))
        x = torch.cat([conv(x, f"{b}.branch1x1"),
                       *[conv(middle, f"{b}.branch3x3_2{side}") for side in "ab"],
                       *[conv(deep, f"{b}.branch3x3dbl_3{side}") for side in "ab"],
                       conv(pooled, f"{b}.branch_pool")], 1)
    return x.mean((2, 3))
