"""The data gate: what is wrong with a site's data, decided once for check, training, prediction and the exported bundle."""
