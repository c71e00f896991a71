"""What servers share: who may ask, how much, and how a photograph is decoded. Needs the extra `serve`."""
