"""Does an artifact give what its model gives?"""
