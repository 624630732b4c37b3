"""Many trials: what is planned, trained, and kept as rows."""
