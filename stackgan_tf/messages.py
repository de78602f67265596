"""How a mistake is said: one line, with what to do about it."""

import errno
import re
import sys

_LONGEST = 1000  # characters

# What to do where the system refused something.
_REMEDIES = {errno.ENOSPC: "make room", errno.EDQUOT: "make room",
             errno.EACCES: "see to the permissions", errno.EPERM: "see to the permissions"}

# What TensorFlow was refused, by its error's name and words. The rest, a shape that does not fit
# for instance, is a fault of ours.
_OF_TENSORFLOW = (
    ("OOM when allocating", "a smaller --batch_size, --image_size or width of the networks needs "
     "less memory"),
    ("No space left|[Qq]uota exceeded", "make room"),
    ("PermissionDenied|Unauthenticated|Permission denied|Read-only file system",
     "see to the permissions"),
    ("File system scheme .* not implemented", "give a folder of this machine, or one of gs://"),
    ("Unavailable|DeadlineExceeded|Aborted|Too many open files", "try again later; the same "
     "command goes on"),
    ("No such file|was not found|File exists|already exists|[Dd]irectory|name too long|"
     "Input/output error|DataLoss", "see to the file or folder that it names"),
)

# What absl says of a flag, and what we say instead.
_OF_ABSL = (
    (r"flag (--.*): invalid literal for int.*", r"\1 is no whole number; give one."),
    (r"flag (--.*): Exceeds the limit.*", r"\1 is too long a number; give a shorter one."),
    (r"flag (--.*): could not convert string to float.*", r"\1 is no number; give one."),
    (r"flag (--.*): \('Non-boolean argument.*", r"\1 is neither true nor false; give one."),
    (r"flag (--.*)", r"\1; --help says more."),
    (r"ERROR:: Unable to open flagfile: \[.*\] (.*): '(.*)'",
     r"--flagfile=\2 cannot be read: \1; give a text file of flags, one a line."),
    (r"(.* codec can't decode byte .*)",
     r"--flagfile is no UTF-8 text (\1); give a text file of flags, one a line."),
    (r"((?:Unknown|Missing|--).*)", r"\1; --help lists the options."),
)


def printable(text: str) -> str:
    """One line that no name or caption in it can break, color, or give orders to a terminal."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def fail(message: str, code: int) -> int:
    """Prints the message as one line, whatever content of a file or flag is in it."""
    line = printable(message)
    if len(line) > _LONGEST:  # what was wrong stands in front, the remedy at the end
        line = f"{line[:_LONGEST - 400]} ... {line[-300:]}"
    print(f"error: {line}", file=sys.stderr)
    return code


def of_absl(message: str) -> str:
    """What a flags.Error says, with a remedy."""
    for pattern, words in _OF_ABSL:
        if re.fullmatch(pattern, message, re.DOTALL):
            return re.sub(pattern, words, message, flags=re.DOTALL)
    return message


def of_system(error: OSError) -> str:
    """What the system refused, with a remedy."""
    remedy = _REMEDIES.get(error.errno, "give another path")
    return f"{error.filename or 'the disk'}: {error.strerror or error}; {remedy}."


def of_tensorflow(error: Exception) -> str:
    """What TensorFlow was refused, with a remedy; "" if the error is none of that kind. It is not
    imported for this: the demo, for one, does without."""
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is None or not isinstance(error, tensorflow.errors.OpError):
        return ""
    for words, remedy in _OF_TENSORFLOW:
        if re.search(words, f"{type(error).__name__} {error.message}"):
            return f"{reason(error)}; {remedy}."
    return ""


def reason(error: Exception) -> str:
    """The first line of what the system, TensorFlow or a library says, with the file it names."""
    text = getattr(error, "message", None) or getattr(error, "strerror", None) or str(error)
    text = re.sub(r"\{\{.*?\}\} ?", "", text).strip()  # TensorFlow's name of the graph node
    line = text.splitlines()[0][:400] if text else type(error).__name__
    file = getattr(error, "filename", None)
    return f"{line} ({str(file)[:200]})" if file else line
