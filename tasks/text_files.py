"""A language model of the texts on the user's own disk."""

from __future__ import annotations

from typing import Any

from sparselit.data.corpus.documents import Gathered, files_documents
from sparselit.data.texts import Texts


class TextFiles(Texts):
    """Any texts: a file, a folder with all below it, or a glob.

    Left out, and counted in ``corpus.json``: copies and near-copies, files above 200 kB, generated files, files of
    mostly digits, and what is no text; of each file the comment at its top where that speaks of rights.

    Args:
        path: file, folder, or glob such as ``notes/**/*.md``.
        kwargs: arguments of :class:`~sparselit.data.texts.Texts`.
    """

    def __init__(self, path: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.save_hyperparameters("path", logger=False)

    def collection(self) -> Gathered:
        """The texts at ``path``."""
        return files_documents(self.hparams["path"])
