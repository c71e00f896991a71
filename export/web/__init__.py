"""A page that segments photographs and the camera in the browser, from an exported graph.

`assemble.write_folder` and `assemble.write_single_file` make it; `page/` holds its modules.
"""
