"""What the machine and its packages are asked: files, processor, OpenCV, missing packages, secrets in text."""
