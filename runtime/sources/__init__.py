"""Where frames come from: cameras, videos, folders, network streams and a synthetic scene."""
