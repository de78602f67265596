"""What suits the machine: number format, XLA, and how often Python looks at the training."""

import tensorflow as tf

from stackgan_tf.config import Config


def precision(config: Config) -> str:
    """The Keras dtype policy: "auto" is mixed_bfloat16 on TPUs, on GPUs from Ampere on and on CPUs
    with AMX or AVX-512 BF16, which multiply bfloat16 faster, and float32 anywhere else."""
    if config.precision != "auto":
        return config.precision
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        ampere = (8, 0)
        capability = tf.config.experimental.get_device_details(gpus[0]).get("compute_capability")
        fast = (capability or ampere) >= ampere
    else:
        fast = bool(tf.config.list_logical_devices("TPU")
                    or {"amx_bf16", "avx512_bf16"} & {*_cpu_flags()})
    return "mixed_bfloat16" if fast else "float32"


def has_accelerator() -> bool:
    """Whether TensorFlow sees a GPU or a TPU."""
    return bool(tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("TPU"))


def jit_compile(config: Config) -> bool:
    """Whether XLA compiles the step; on a CPU it is slower than TensorFlow's own kernels."""
    return has_accelerator() if config.jit_compile == "auto" else config.jit_compile == "on"


def settle_determinism(config: Config) -> None:
    """With --deterministic, TensorFlow takes only operations that give the same bits each time on
    the same machine, and an error where it has none; for the whole process, at its start."""
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()


def steps_per_call(config: Config) -> int:
    """Steps that run before Python looks again; on a CPU it never is what the step waits for."""
    return config.steps_per_call or (10 if has_accelerator() else 1)


def _cpu_flags():
    try:
        with open("/proc/cpuinfo") as file:
            return next((line for line in file if line.startswith("flags")), "").split()
    except OSError:  # not Linux
        return []
