"""DICOM as scanners, archives and CDs leave it: which files there are, which series, which modality, which volume."""
