"""Operations on files and folders that the standard library lacks."""

import errno
import os
from os import PathLike


def sync_folder(folder: str | PathLike[str]) -> None:
    """Bring the names in a folder to the disk, as fsync brings a file's content; without it a crash may lose the file.

    Raises:
        OSError: It cannot be opened, or the disk fails.
    """
    if os.name == "nt":
        return  # Windows opens no folder
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems
            raise
    finally:
        os.close(descriptor)
