"""The DICOM wire: associations, C-ECHO, C-STORE, C-FIND and the similarity view."""
