"""The node as a client of other DICOM nodes: what it sends, asks and fetches there."""
