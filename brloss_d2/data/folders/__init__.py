"""Folders of labels in other formats, as the contents of COCO files.

`recognize` chooses a reader; each reader is one module with one function `read`.
"""

from brloss_d2.data.folders.recognize import DataFolder, read_folder, with_names_of

__all__ = ["DataFolder", "read_folder", "with_names_of"]
