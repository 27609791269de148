"""A hook of mkdocs: links from docs/ to other files of the repository, which the site has not, become names.

In a checkout and where it is hosted such links work; here the file must at least exist.
"""

import os
import re
from typing import Any

HERE = os.path.dirname(os.path.abspath(__file__))


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """`[text](../FILE)` as "text (FILE)"; mkdocs itself complains of every other link that leads nowhere."""
    folder = os.path.dirname(os.path.join(HERE, page.file.src_uri))

    def replaced(hit: re.Match[str]) -> str:
        target = os.path.normpath(os.path.join(folder, hit["path"]))
        if target.startswith(HERE + os.sep) or not os.path.exists(target):
            return hit[0]
        name = os.path.relpath(target, os.path.dirname(HERE))
        return hit["text"] if hit["text"].strip("`") == name else f"{hit['text']} (`{name}`)"

    return re.sub(r"\[(?P<text>[^\]]*)\]\((?P<path>\.\./[^)#\s]*)(?:#[^)]*)?\)", replaced, markdown)
