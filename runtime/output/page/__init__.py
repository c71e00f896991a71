"""What the pages share (style.css, drawing.js, viewer.js), and how modules become one script inside of a page."""

from cast_sdk.runtime.output.page.joining import element_hash, inline_page, join_modules, page_folder

__all__ = ["element_hash", "inline_page", "join_modules", "page_folder"]
