"""The data gate: what is wrong with a site's data, decided in one place for check, training, prediction and the exported bundle."""
