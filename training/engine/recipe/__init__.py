"""Recipes: what they may say, their files, and checks of both."""
