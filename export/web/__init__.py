"""A page that segments photographs and the camera in the browser, from an exported graph."""

from cast_sdk.export.web.assemble import write_folder, write_single_file

__all__ = ["write_folder", "write_single_file"]
