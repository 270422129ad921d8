"""Every error the package raises on purpose, below one base class.

Each message says what was wrong, the value seen and what to do about it, in one line: the command line
prints it as it is.
"""


class InrcodecError(Exception):
    """Base class of all errors raised by inrcodec."""


class InrcodecWarning(UserWarning):
    """Something a user should know although the work went on; shown in one line."""


class UsageError(InrcodecError):
    """An argument or option is out of its range or does not fit the input."""


class Diverged(UsageError):
    """A meta-training has no finite gradients any more: its settings do not fit."""


class SignalError(InrcodecError):
    """A file cannot be read or written as a signal."""


class ContainerError(InrcodecError):
    """An `.inr` file cannot be decoded; the subclasses say why."""


class NotAnInrFile(ContainerError):
    """The file does not begin with the magic bytes."""


class UnsupportedVersion(ContainerError):
    """The file was written by a newer version of the format."""


class TruncatedFile(ContainerError):
    """The file ends before its last section does."""


class CorruptFile(ContainerError):
    """A checksum does not match, or a field has a value no encoder writes."""


class InitializationError(InrcodecError):
    """An initialization file is malformed."""


class UnknownInitialization(InitializationError):
    """No installed or given initialization has the asked name or identifier."""
