"""The headers of the synthetic hospital: the DICOM attributes of a series and of its instances.

One module for each family of modalities. Each header is made when somebody asks for it, and depends
only on the tags of the summary. See `data.metadata` for the document around it.
"""
