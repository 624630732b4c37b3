"""Losses and training that raise the recall of the classes that must not be missed."""
