"""The one reader of image files: the runtime, training, calibration, verification and the web pages see its pixels."""
