"""One trial, and its lift over many: the methods, the network, the recipe."""
